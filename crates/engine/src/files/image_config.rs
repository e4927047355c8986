//! What an image of a container starts from: the container's own configuration, as Docker's commit takes it.

use crate::health::Check;
use crate::model::{MountForm, MountSource, Spec};
use oci::image::{Config, Healthcheck};

/// The configuration of a container's process, without what is of this one container alone.
pub(super) fn of(spec: &Spec) -> Config {
    let process = &spec.process;
    let words = |words: &[String]| Some(words.to_vec()).filter(|words| !words.is_empty());
    let ports = spec.network.exposed.iter();
    let volumes = spec.mounts.iter().filter(|mount| {
        let of_image = mount.form == MountForm::Inherited;
        let is_anonymous = matches!(
            mount.source,
            MountSource::Volume {
                anonymous: true,
                ..
            }
        );
        of_image && is_anonymous
    });
    Config {
        user: process.user.clone(),
        exposed_ports: ports
            .map(|port| format!("{}/{}", port.number, port.protocol.as_str()))
            .collect(),
        env: process.environment.clone(),
        entrypoint: words(&process.entrypoint),
        cmd: words(&process.command),
        volumes: volumes.map(|mount| mount.target.clone()).collect(),
        working_dir: process.working_dir.clone(),
        labels: spec.labels.clone(),
        stop_signal: spec.lifecycle.stop_signal.clone().unwrap_or_default(),
        healthcheck: spec.health.as_ref().map(healthcheck),
        ..Config::default()
    }
}

fn healthcheck(check: &Check) -> Healthcheck {
    Healthcheck {
        test: check.test.clone(),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    }
}
