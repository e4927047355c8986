//! What a container is kept apart by, as a create request says it: namespaces, capabilities, labels, devices.

use super::create::{Result, non_empty};
use crate::http::Error;
use api_types as wire;
use engine::cdi::DeviceRequest;
use engine::model::{Device, Ipc, Isolation, Namespace, Seccomp};
use std::path::PathBuf;

/// Size of `/dev/shm` unless asked otherwise.
pub(crate) const SHM_BYTES: u64 = 64 << 20;

/// Reads what a container is kept apart by.
pub(super) fn isolation(body: &wire::CreateRequest, host: &wire::HostConfig) -> Result<Isolation> {
    let mut isolation = Isolation {
        privileged: host.privileged,
        read_only: host.readonly_rootfs,
        hostname: body.hostname.clone(),
        domainname: body.domainname.clone(),
        pid: namespace("PID", &host.pid_mode)?,
        ipc: ipc(&host.ipc_mode)?,
        uts: own_or_host("UTS", &host.uts_mode)?,
        cgroup: own_or_host("cgroup namespace", &host.cgroupns_mode)?,
        user_namespace: match host.userns_mode.as_str() {
            "" | "host" => false,
            "private" => true,
            other => {
                return Err(Error::bad_request(format!(
                    "invalid USER mode: {other}: it is host or private"
                )));
            }
        },
        cap_add: host.cap_add.clone().unwrap_or_default().0,
        cap_drop: host.cap_drop.clone().unwrap_or_default().0,
        masked_paths: paths(&host.masked_paths),
        read_only_paths: paths(&host.readonly_paths),
        devices: host
            .devices
            .iter()
            .flatten()
            .map(device)
            .collect::<Result<_>>()?,
        device_requests: host
            .device_requests
            .iter()
            .flatten()
            .map(device_request)
            .collect(),
        device_rules: host.device_cgroup_rules.clone().unwrap_or_default(),
        sysctls: host.sysctls.clone().unwrap_or_default(),
        init: host.init.unwrap_or(false),
        shm_bytes: match u64::try_from(host.shm_size) {
            Ok(0) => SHM_BYTES,
            Ok(bytes) => bytes,
            Err(_) => return Err(Error::bad_request("SHM size can not be less than 0")),
        },
        oom_score_adj: match i32::try_from(host.oom_score_adj) {
            Ok(value @ -1000..=1000) => value,
            _ => {
                return Err(Error::bad_request(format!(
                    "Invalid value {}, range for oom score adj is [-1000, 1000]",
                    host.oom_score_adj
                )));
            }
        },
        cgroup_parent: non_empty(&host.cgroup_parent),
        ..Isolation::default()
    };
    if isolation.user_namespace && isolation.privileged {
        return Err(Error::bad_request(
            "privileged mode is incompatible with user namespaces",
        ));
    }
    for option in host.security_opt.iter().flatten() {
        security_option(option, &mut isolation)?;
    }
    Ok(isolation)
}

fn paths(list: &Option<Vec<String>>) -> Option<Vec<PathBuf>> {
    let list = list.as_ref()?;
    Some(list.iter().map(PathBuf::from).collect())
}

fn security_option(option: &str, isolation: &mut Isolation) -> Result<()> {
    let (name, value) = option
        .split_once('=')
        .or_else(|| option.split_once(':'))
        .unwrap_or((option, ""));
    match (name, value) {
        ("no-new-privileges", "" | "true") => isolation.no_new_privileges = true,
        ("no-new-privileges", "false") => isolation.no_new_privileges = false,
        ("seccomp", "unconfined") => isolation.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => isolation.seccomp = Seccomp::Default,
        ("seccomp", profile) => isolation.seccomp = Seccomp::Profile(profile.to_owned()),
        ("systempaths", "unconfined") => isolation.unmasked_paths = true,
        ("apparmor", profile) => isolation.apparmor = non_empty(profile),
        ("label", "disable") => {}
        ("label", _) => {
            return Err(Error::unsupported(
                "an SELinux label (--security-opt label)",
            ));
        }
        _ => {
            return Err(Error::bad_request(format!(
                "invalid --security-opt: {option:?}"
            )));
        }
    }
    Ok(())
}

fn namespace(what: &str, mode: &str) -> Result<Namespace> {
    match mode.split_once(':') {
        None if mode.is_empty() || mode == "private" => Ok(Namespace::Private),
        None if mode == "host" => Ok(Namespace::Host),
        Some(("container", name)) if !name.is_empty() => Ok(Namespace::Container(name.to_owned())),
        _ => Err(Error::bad_request(format!("invalid {what} mode: {mode}"))),
    }
}

fn own_or_host(what: &str, mode: &str) -> Result<Namespace> {
    match namespace(what, mode)? {
        Namespace::Container(_) => Err(Error::bad_request(format!("invalid {what} mode: {mode}"))),
        namespace => Ok(namespace),
    }
}

fn ipc(mode: &str) -> Result<Ipc> {
    match (mode, mode.split_once(':')) {
        ("" | "private", _) => Ok(Ipc::Private),
        ("shareable", _) => Ok(Ipc::Shareable),
        ("none", _) => Ok(Ipc::None),
        ("host", _) => Ok(Ipc::Host),
        (_, Some(("container", name))) if !name.is_empty() => Ok(Ipc::Container(name.to_owned())),
        _ => Err(Error::bad_request(format!("invalid IPC mode: {mode}"))),
    }
}

fn device_request(request: &wire::DeviceRequest) -> DeviceRequest {
    DeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        names: request.device_ids.clone().unwrap_or_default(),
        capabilities: request.capabilities.clone().unwrap_or_default(),
        options: request.options.clone().unwrap_or_default(),
    }
}

fn device(device: &wire::DeviceMapping) -> Result<Device> {
    let access = if device.cgroup_permissions.is_empty() {
        "rwm"
    } else {
        &device.cgroup_permissions
    };
    if !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(Error::bad_request(format!(
            "invalid device permissions: {access:?}: they are of r, w, m"
        )));
    }
    let target = if device.path_in_container.is_empty() {
        &device.path_on_host
    } else {
        &device.path_in_container
    };
    Ok(Device {
        host_path: PathBuf::from(&device.path_on_host),
        container_path: target.clone(),
        access: access.to_owned(),
    })
}
