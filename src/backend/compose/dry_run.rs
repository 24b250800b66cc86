//! What a run would do now, found out by looking alone.

use super::ComposeBackend;
use crate::backend::{Failure, RunSpec};
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::plan::{self, Convergence, Plan, startup_order};

impl<E: Engine> ComposeBackend<E> {
    pub(super) async fn plan_run(&self, spec: RunSpec<'_>) -> Result<Plan, Failure> {
        let RunSpec { project: whole, service, .. } = spec;
        let images = self.look_at_images(whole).await?;
        let mut all = plan::ensure_images(whole, &images, Timestamp::now()).map_err(Failure::Plan)?;
        let options = self.options(whole).await?;
        let mut stack = self.observe(&whole.name).await?;

        let project = whole.without(service);
        for (key, network) in &project.networks {
            let seen = self.look_at_network(&network.name).await?;
            let id = plan::network_id(&project, key, &seen).map_err(Failure::Plan)?;
            stack.networks.extend(id.map(|id| (key.clone(), id)));
            let next = plan::ensure_network(&project, key, &seen, &stack, &options).map_err(Failure::Plan)?;
            stack = stack.after(&next);
            all.append(next);
        }
        for (key, volume) in &project.volumes {
            let seen = self.look_at_volume(&volume.name).await?;
            all.append(plan::ensure_volume(&project, key, seen.as_ref(), &options).map_err(Failure::Plan)?);
        }
        let order: Vec<_> = startup_order(&project).into_iter().flatten().collect();
        for name in &order {
            let options = self.options_for(&project, name, &images, &stack, options.clone())?;
            let how = Convergence::default();
            let next = plan::converge(&project, name, &stack, &how, &options).map_err(Failure::Plan)?;
            stack = stack.after(&next);
            all.append(next);
        }
        for name in &order {
            let options = self.options_for(&project, name, &images, &stack, options.clone())?;
            all.append(plan::start(&project, name, &stack, &options).map_err(Failure::Plan)?);
        }

        let options = self.options_for(whole, service, &images, &stack, options)?;
        all.append(plan::run_one_off(whole, service, &spec.one_off(), &options).map_err(Failure::Plan)?);
        Ok(all)
    }
}
