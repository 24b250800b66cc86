//! Settings as a user meets them: layers, variables, and the errors of all of them at once.

use std::time::Duration;

use sense_orchestrator::settings::{Environment, Settings, Sources};

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::new(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
}

fn with_variables(variables: &[(&str, &str)]) -> Result<Settings, String> {
    let sources = Sources { environment: environment(variables), ..Sources::default() };
    Settings::load(&sources).map_err(|errors| errors.to_string())
}

#[test]
fn the_defaults_and_the_preset_are_sound() {
    let settings = with_variables(&[]).unwrap();
    assert_eq!(settings.preset, "sense-pulse");
    assert_eq!(settings.runs.timeout, Duration::from_mins(1));
    assert!(settings.warnings.is_empty());
}

#[test]
fn without_a_preset_nothing_is_scheduled() {
    let settings = with_variables(&[("ORCHESTRATOR_PRESET", "none")]).unwrap();
    assert!(settings.services.is_empty() && settings.actions.is_empty() && settings.seeds.is_empty());
}
