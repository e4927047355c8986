//! What the engine's configuration gives to containers that do not ask for it.

use api_types as wire;
use engine::Defaults;

/// Gives a request the log driver, its options, the init and the runtime of the configuration, where it names none.
pub(crate) fn apply(defaults: &Defaults, body: &mut wire::CreateRequest) {
    let host = body.host_config.get_or_insert_default();
    let log = &mut host.log_config;
    if log.driver.is_empty() {
        log.driver.clone_from(&defaults.log_driver);
    }
    if log.driver == defaults.log_driver {
        let own = log.config.get_or_insert_default();
        for (name, value) in &defaults.log_options {
            own.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    if host.init.is_none() && defaults.init {
        host.init = Some(true);
    }
    if host.runtime.is_empty() {
        host.runtime.clone_from(&defaults.runtime);
    }
}
