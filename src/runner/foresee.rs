//! What a run would do now, found out by looking alone.

use super::{Failure, Runner};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::names::ServiceName;
use crate::plan::{self, Convergence, Plan, startup_order};
use crate::spec::{OneOff, Slug};

impl<E: Engine, B: Bus> Runner<E, B> {
    /// The calls that a run of the service would make now, up to the start of its container. Nothing is changed.
    ///
    /// # Errors
    ///
    /// What would fail the run before its container is there: the files, the Engine, or a plan that cannot be made.
    pub async fn foresee(&self, service: &ServiceName) -> Result<Plan, Failure> {
        let inner = &self.inner;
        let own = inner.options.service(service);
        let whole = inner.projects.select(service, own.profile.as_deref()).map_err(Failure::Project)?;
        let images = self.look_at_images(&whole).await?;
        let mut all = plan::ensure_images(&whole, &images, Timestamp::now()).map_err(Failure::Plan)?;
        let options = self.options(&whole).await?;
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

        let options = self.options_for(&whole, service, &images, &stack, options)?;
        let slug = Slug::new(super::random(), &whole.name, service);
        let environment = own.environment.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        let run = OneOff { slug, environment: environment.collect() };
        all.append(plan::run_one_off(&whole, service, &run, &options).map_err(Failure::Plan)?);
        Ok(all)
    }
}
