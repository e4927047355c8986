//! A create request. What is not supported is an error that names it, never ignored.

use super::connections::{network, wishes};
use super::isolation::isolation;
use super::limits::{limits, refuse_windows_limits};
use super::mounts;
use crate::http::Error;
use api_types as wire;
use engine::Update;
use engine::health::{Check, ON_FAILURE_LABEL, OnUnhealthy};
use engine::model::{AttachFlags, CreateRequest, Echo, Lifecycle, LogSpec, ProcessSpec, Restart};
use std::collections::BTreeMap;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Reads a request.
pub(crate) fn request(
    name: Option<&str>,
    body: wire::CreateRequest,
    below_binds: mounts::BelowBinds,
) -> Result<CreateRequest> {
    let host = body.host_config.as_deref().cloned().unwrap_or_default();
    refuse(&body, &host)?;
    if body
        .volumes
        .as_ref()
        .is_some_and(|volumes| !volumes.is_empty())
    {
        mounts::check_driver(&host.volume_driver)?;
    }
    let keys = |set: &Option<BTreeMap<String, wire::Empty>>| -> Vec<String> {
        set.iter().flat_map(|set| set.keys().cloned()).collect()
    };
    let [rows, columns] = host.console_size;
    let size = (
        u16::try_from(rows).unwrap_or(0),
        u16::try_from(columns).unwrap_or(0),
    );
    Ok(CreateRequest {
        name: name.map(|name| name.trim_start_matches('/').to_owned()),
        image: body.image.clone(),
        platform: None,
        entrypoint: body.entrypoint.clone().map(|words| words.0),
        command: body.cmd.clone().map(|words| words.0),
        process: ProcessSpec {
            environment: body.env.clone().unwrap_or_default(),
            working_dir: body.working_dir.clone(),
            user: body.user.clone(),
            groups: host.group_add.clone().unwrap_or_default(),
            terminal: body.tty,
            open_stdin: body.open_stdin,
            stdin_once: body.stdin_once,
            attach: AttachFlags {
                stdin: body.attach_stdin,
                stdout: body.attach_stdout,
                stderr: body.attach_stderr,
            },
            console_size: Some(size).filter(|size| *size != (0, 0)),
            ..ProcessSpec::default()
        },
        isolation: isolation(&body, &host)?,
        limits: limits(&host.resources())?,
        mounts: mounts::read(&host, below_binds)?,
        volumes: keys(&body.volumes),
        network: network(&body, &host)?,
        wishes: wishes(&body)?,
        lifecycle: Lifecycle {
            restart: restart(&host.restart_policy, host.auto_remove)?,
            auto_remove: host.auto_remove,
            stop_signal: non_empty(&body.stop_signal),
            stop_timeout_s: body.stop_timeout,
        },
        log: LogSpec::read(
            &host.log_config.driver,
            &host.log_config.config.clone().unwrap_or_default(),
        )?,
        labels: body.labels.clone().unwrap_or_default(),
        annotations: host.annotations.clone().unwrap_or_default(),
        health: health(&body)?,
        volumes_from: host.volumes_from.clone().unwrap_or_default(),
        storage: host.storage_opt.clone().unwrap_or_default(),
        echo: Echo {
            runtime: runtime(&host.runtime)?,
            isolation: host.isolation.clone(),
            volume_driver: host.volume_driver.clone(),
        },
    })
}

fn health(body: &wire::CreateRequest) -> Result<Option<Check>> {
    let label = body
        .labels
        .as_ref()
        .and_then(|labels| labels.get(ON_FAILURE_LABEL));
    let on_unhealthy = label.map(|word| OnUnhealthy::parse(word)).transpose()?;
    if body.healthcheck.is_none() && on_unhealthy.is_none() {
        return Ok(None);
    }
    let config = body.healthcheck.clone().unwrap_or_default();
    Ok(Some(Check {
        test: config.test,
        shell: Vec::new(),
        interval_ns: config.interval,
        timeout_ns: config.timeout,
        start_period_ns: config.start_period,
        start_interval_ns: config.start_interval,
        retries: config.retries,
        on_unhealthy: on_unhealthy.unwrap_or_default(),
    }))
}

pub(super) fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What a request calls the runtime: there is one, which answers to the names of those whose place it takes.
fn runtime(name: &str) -> Result<String> {
    match name {
        "" | "hull" | "runc" | "io.containerd.runc.v2" => Ok(name.to_owned()),
        other => Err(Error::bad_request(format!(
            "unknown or invalid runtime name: {other}: there is hull's own, which runc stands for, too"
        ))),
    }
}

/// Names the first thing that is asked for and not supported.
fn refuse(body: &wire::CreateRequest, host: &wire::HostConfig) -> Result<()> {
    let unsupported = [
        (
            body.network_disabled,
            "NetworkDisabled: use --network none, which",
        ),
        (host.kernel_memory_tcp != 0, "a limit of TCP memory"),
        (
            !matches!(host.isolation.as_str(), "" | "default"),
            "--isolation (Windows)",
        ),
        (!host.cgroup.is_empty(), "HostConfig.Cgroup"),
    ];
    match unsupported.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Error::unsupported(what)),
        None => refuse_windows_limits(&host.resources()),
    }
}

/// Reads an update.
pub(crate) fn update(body: &wire::UpdateRequest) -> Result<Update> {
    let given = |list: bool, what: &str| match list {
        true => Err(Error::unsupported(&format!(
            "changing {what} of a container"
        ))),
        false => Ok(()),
    };
    let some = |list: Option<usize>| list.is_some_and(|length| length > 0);
    given(some(body.ulimits.as_ref().map(Vec::len)), "resource limits")?;
    given(some(body.devices.as_ref().map(Vec::len)), "the devices")?;
    given(
        some(body.device_cgroup_rules.as_ref().map(Vec::len)),
        "the device rules",
    )?;
    given(
        some(body.device_requests.as_ref().map(Vec::len)),
        "the device requests",
    )?;
    given(!body.cgroup_parent.is_empty(), "the parent cgroup")?;
    given(
        body.oom_kill_disable == Some(true),
        "the OOM killer's setting",
    )?;
    refuse_windows_limits(&body.resources())?;
    Ok(Update {
        limits: limits(&body.resources())?,
        // 0 and -1 both lift the limit; nothing keeps it.
        unlimited_pids: body.pids_limit.is_some_and(|limit| limit <= 0),
        restart: match body.restart_policy.name.as_str() {
            "" => None,
            _ => Some(restart(&body.restart_policy, false)?),
        },
    })
}

fn restart(policy: &wire::RestartPolicy, auto_remove: bool) -> Result<Restart> {
    let restart = match policy.name.as_str() {
        "" | "no" => Restart::No,
        "always" => Restart::Always,
        "unless-stopped" => Restart::UnlessStopped,
        "on-failure" => {
            Restart::OnFailure(u32::try_from(policy.maximum_retry_count).map_err(|_| {
                Error::bad_request("invalid restart policy: maximum retry count cannot be negative")
            })?)
        }
        other => {
            return Err(Error::bad_request(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if policy.maximum_retry_count != 0 && !matches!(restart, Restart::OnFailure(_)) {
        return Err(Error::bad_request(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if auto_remove && restart != Restart::No {
        return Err(Error::bad_request(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    Ok(restart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::model::EndpointWish;

    fn read(json: &str) -> Result<CreateRequest> {
        let body = api_types::from_slice(json.as_bytes()).unwrap();
        request(None, body, mounts::BelowBinds::ReadOnly)
    }

    #[test]
    fn what_is_not_there_is_named() {
        use http::StatusCode;
        let asked = [
            (
                r#"{"HostConfig":{"Runtime":"kata"}}"#,
                StatusCode::BAD_REQUEST,
                "runtime name: kata",
            ),
            (
                r#"{"HostConfig":{"LogConfig":{"Type":"fluentd"}}}"#,
                StatusCode::BAD_REQUEST,
                "fluentd",
            ),
            (
                r#"{"HostConfig":{"VolumeDriver":"nfs"},"Volumes":{"/v":{}}}"#,
                StatusCode::NOT_FOUND,
                "plugin \"nfs\" not found",
            ),
        ];
        for (json, status, named) in asked {
            let error = read(json).unwrap_err();
            assert_eq!(error.status, status, "{json}");
            assert!(error.message.contains(named), "{json}: {}", error.message);
        }
    }

    #[test]
    fn ports_are_read_with_ranges_and_addresses() {
        let json = r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8000-8010"}],"53/udp":[{}]}}}"#;
        let published = read(json).unwrap().network.published;
        assert_eq!(published[0].host_ports, (0, 0));
        assert_eq!(
            (published[1].host_ports, published[1].port.number),
            ((8000, 8010), 80)
        );
        for bad in [
            r#"{"HostConfig":{"PortBindings":{"0/tcp":[{}]}}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"9-8"}]}}}"#,
        ] {
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn wishes_are_read() {
        let json = r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":"10.0.0.7","LinkLocalIPs":["169.254.1.1"]},"Aliases":["db"],"GwPriority":3},"b":null,"host":{}}}}"#;
        let wishes = read(json).unwrap().wishes;
        assert_eq!(wishes.len(), 2);
        assert_eq!(wishes[0].1.ipv4, Some([10, 0, 0, 7].into()));
        assert_eq!(
            (wishes[0].1.aliases.len(), wishes[0].1.gateway_priority),
            (1, 3)
        );
        assert_eq!(wishes[1], ("b".to_owned(), EndpointWish::default()));
        let bad = r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":{"IPv4Address":"fd00::1"}}}}}"#;
        assert!(read(bad).is_err());
    }
}
