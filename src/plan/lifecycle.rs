//! Starting and stopping what exists, and the steps of a run.

use std::time::Duration;

use super::{Call, Cause, Container, Plan, PlanError, Stack, State};
use crate::compose::project::{Project, Service};
use crate::names::ServiceName;
use crate::request::ExecCommand;
use crate::spec::files::{CopiedFile, copied_files};
use crate::spec::{CreateContainer, OneOff, SpecError, SpecOptions, hook_commands, one_off};

/// The Engine's own stop grace period, for a container that names none.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Starts the service's containers that do not run, once its dependencies are ready.
///
/// # Errors
///
/// The service has no container although it wants some, or a file for it cannot be made.
pub fn start(project: &Project, name: &ServiceName, stack: &Stack, options: &SpecOptions) -> Result<Plan, PlanError> {
    let wrap = |source| PlanError::Spec { service: name.clone(), source };
    let service = project.services.get(name).ok_or_else(|| wrap(SpecError::NoSuchService(name.clone())))?;
    let mut plan = Plan::default();
    if replicas(service) == 0 {
        return Ok(plan);
    }
    let files = copied_files(project, name, options).map_err(wrap)?;
    let mut any = false;
    for container in stack.of_service(name) {
        any = true;
        if container.state == State::Running {
            continue;
        }
        start_steps(
            &container.name,
            &files,
            &hook_commands(&service.post_start),
            &Cause::NotRunning { state: container.state },
            &mut plan,
        );
    }
    if any { Ok(plan) } else { Err(PlanError::NothingToStart { service: name.to_string() }) }
}

/// Stops the service's containers; one-offs are left alone. Those of a service that the project lacks are stopped without
/// hooks.
pub fn stop(project: &Project, name: &ServiceName, stack: &Stack) -> Plan {
    let mut plan = Plan::default();
    for container in stack.of_service(name) {
        stop_steps(project, name, container, &Cause::Asked, &mut plan);
    }
    plan
}

/// Creates a one-off and starts it. What comes after, its end and its removal, is the runner's.
///
/// # Errors
///
/// The service cannot be run as its file says, or a file for it cannot be made.
pub fn run_one_off(
    project: &Project,
    name: &ServiceName,
    run: &OneOff,
    options: &SpecOptions,
) -> Result<Plan, PlanError> {
    let wrap = |source| PlanError::Spec { service: name.clone(), source };
    let service = project.services.get(name).ok_or_else(|| wrap(SpecError::NoSuchService(name.clone())))?;
    let mut plan = Plan::default();
    let container = one_off(project, name, run, options).map_err(wrap)?;
    let container_name = container.name.clone();
    create_steps(container, Cause::Run, &mut plan);
    let files = if options.dialect.copies_files_into_one_offs() {
        copied_files(project, name, options).map_err(wrap)?
    } else {
        Vec::new()
    };
    let hooks = if options.dialect.runs_hooks_in_one_offs() { hook_commands(&service.post_start) } else { Vec::new() };
    start_steps(&container_name, &files, &hooks, &Cause::Run, &mut plan);
    Ok(plan)
}

/// How many containers the service wants.
pub(super) fn replicas(service: &Service) -> u32 {
    let deployed = service.deploy.as_ref().and_then(|deploy| deploy.replicas);
    service.scale.or(deployed).map_or(1, |count| u32::try_from(count).unwrap_or(0))
}

/// How long the service's containers may take to stop.
pub fn grace(service: Option<&Service>) -> Duration {
    service
        .and_then(|service| service.stop_grace_period)
        .and_then(|grace| u64::try_from(grace.0).ok())
        .map_or(DEFAULT_GRACE, Duration::from_nanos)
}

/// Create and connect.
pub(super) fn create_steps(mut container: CreateContainer, cause: Cause, plan: &mut Plan) {
    let name = container.name.clone();
    let further = std::mem::take(&mut container.connect);
    plan.push(Call::CreateContainer(Box::new(container)), cause);
    for network in further {
        let call = Call::ConnectNetwork {
            network: network.network,
            container: name.clone(),
            endpoint: Box::new(network.endpoint),
        };
        plan.push(call, Cause::FurtherNetwork);
    }
}

fn start_steps(container: &str, files: &[CopiedFile], hooks: &[ExecCommand], cause: &Cause, plan: &mut Plan) {
    for file in files {
        plan.push(Call::CopyFile { container: container.to_owned(), file: file.clone() }, Cause::Content);
    }
    plan.push(Call::StartContainer { container: container.to_owned() }, cause.clone());
    for hook in hooks {
        plan.push(Call::Exec { container: container.to_owned(), command: hook.clone() }, Cause::Hook);
    }
}

/// `pre_stop` hooks and the stop. A container that does not run is told to stop all the same, as Compose does.
pub(super) fn stop_steps(project: &Project, name: &ServiceName, container: &Container, cause: &Cause, plan: &mut Plan) {
    let service = project.services.get(name).or_else(|| project.disabled.get(name));
    if container.state == State::Running {
        for hook in service.iter().flat_map(|service| hook_commands(&service.pre_stop)) {
            plan.push(Call::Exec { container: container.name.clone(), command: hook }, Cause::Hook);
        }
    }
    plan.push(Call::StopContainer { container: container.name.clone(), grace: grace(service) }, cause.clone());
}

#[cfg(test)]
mod tests {
    use super::super::testing::{busybox, name, options, project, stack, up_to_date};
    use super::*;
    use crate::compose::project::{Deploy, FileObject, FileReference, Hook};
    use crate::compose::value::Duration as ComposeDuration;
    use crate::spec::Slug;

    fn hook(word: &str) -> Vec<Hook> {
        vec![Hook { command: Some(vec![word.to_owned()]), ..Hook::default() }]
    }

    /// A service with hooks and with a config whose content is copied in.
    fn full() -> Project {
        let mut project = project([(
            "web",
            Service {
                post_start: hook("warm"),
                pre_stop: hook("drain"),
                stop_grace_period: Some(ComposeDuration(90_000_000_000)),
                configs: vec![FileReference { source: "c".to_owned(), ..FileReference::default() }],
                ..busybox()
            },
        )]);
        let config = FileObject { name: "p_c".to_owned(), content: "x".to_owned(), ..FileObject::default() };
        project.configs.insert("c".to_owned(), config);
        project
    }

    #[test]
    fn only_what_does_not_run_is_started() {
        let project = project([("web", busybox())]);
        for (state, expected) in [
            (State::Running, "nothing to do"),
            (State::Created, "start container p-web-1 (created)"),
            (State::Exited, "start container p-web-1 (exited)"),
            (State::Restarting, "start container p-web-1 (restarting)"),
        ] {
            let stack = stack([Container { state, ..up_to_date(&project, "web", 1) }]);
            assert_eq!(start(&project, &name("web"), &stack, &options(&stack)).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn content_is_copied_before_the_start_and_hooks_run_after_it() {
        let project = full();
        let stack = stack([Container { state: State::Created, ..up_to_date(&project, "web", 1) }]);
        insta::assert_snapshot!(start(&project, &name("web"), &stack, &options(&stack)).unwrap(), @r#"
        copy /c into container p-web-1 (content of a secret or config)
        start container p-web-1 (created)
        run "warm" in container p-web-1 (hook)
        "#);
    }

    #[test]
    fn a_service_without_containers_cannot_be_started_unless_it_wants_none() {
        let mut project = project([("web", busybox())]);
        let error = start(&project, &name("web"), &stack([]), &options(&stack([]))).unwrap_err();
        assert_eq!(error.to_string(), "service \"web\" has no container to start");
        project.services.get_mut("web").unwrap().deploy = Some(Deploy { replicas: Some(0), ..Deploy::default() });
        assert!(start(&project, &name("web"), &stack([]), &options(&stack([]))).unwrap().is_empty());
    }

    #[test]
    fn stopping_runs_hooks_where_they_can_run_and_leaves_one_offs() {
        let project = full();
        let one_off = Container { one_off: true, name: "p-web-run-1".to_owned(), ..up_to_date(&project, "web", 9) };
        let exited = Container { state: State::Exited, ..up_to_date(&project, "web", 2) };
        let plan = stop(&project, &name("web"), &stack([up_to_date(&project, "web", 1), exited, one_off]));
        insta::assert_snapshot!(plan, @r#"
        run "drain" in container p-web-1 (hook)
        stop container p-web-1 (asked for)
        stop container p-web-2 (asked for)
        "#);
        assert!(plan.steps.iter().all(|step| match step.call {
            Call::StopContainer { grace, .. } => grace == Duration::from_secs(90),
            _ => true,
        }));
    }

    #[test]
    fn a_run_creates_copies_and_starts() {
        let project = full();
        let run = OneOff { slug: Slug::new([0xab; 24], &project.name, &name("web")), environment: <_>::default() };
        let plan = run_one_off(&project, &name("web"), &run, &options(&stack([]))).unwrap();
        insta::assert_snapshot!(plan, @r"
        create container p-web-run-abababababab (run)
        copy /c into container p-web-run-abababababab (content of a secret or config)
        start container p-web-run-abababababab (run)
        ");
    }
}
