//! How a container is, and how far it is: what changes after `create`.

use super::{Attachment, Endpoint, Limits, PublishedPort, Restart, Spec};
use crate::health::Health;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How far a container is.
///
/// ```text
/// Created ──start──▶ Running ◀─unpause/pause─▶ Paused        Running ──ends──▶ Exited ──start──▶ Running
///    └──────remove──▶ Removing ◀──remove── Exited            Running ──ends, restart policy──▶ Restarting ──▶ Running
///                        └──failed──▶ Dead ──remove──▶ Removing
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never started, or the first start failed.
    Created,
    /// Its init runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has ended and waits to be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// It is being removed.
    Removing,
    /// Its removal has failed.
    Dead,
}

impl Phase {
    /// The word Docker's clients know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether its init exists.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether `to` may follow: the table of the drawing above.
    pub fn may_become(self, to: Self) -> bool {
        use Phase::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        matches!(
            (self, to),
            (Created | Exited | Restarting, Running)
                | (Running, Paused)
                | (Paused, Running)
                | (Running | Paused, Exited | Restarting)
                | (Restarting, Exited)
                | (Created | Exited | Restarting | Dead, Removing)
                | (Removing, Dead)
        )
    }
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How far it is.
    pub phase: Phase,
    /// The init's process id on the host, while it runs.
    pub pid: Option<i32>,
    /// The last exit code.
    pub exit_code: i32,
    /// Why the last start failed, or what went wrong at the end.
    pub error: String,
    /// Whether the kernel killed a process for want of memory in the last run.
    pub oom_killed: bool,
    /// When it last began to run.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How many times the policy has restarted it.
    pub restart_count: u32,
    /// Whether it was stopped by hand.
    pub stopped_by_hand: bool,
    /// Whether everybody was told of the end of its last run.
    pub told: bool,
    /// How many times it has ended: lets a waiter recognise the next end.
    pub exits: u64,
    /// The networks it is connected with, or will be when it runs: the one of its network mode first.
    pub attachments: Vec<Attachment>,
    /// The first host id of its user namespace, while it has one.
    pub user_namespace_base: Option<u32>,
    /// Its limits, where they were changed since it was created.
    pub limits: Option<Limits>,
    /// Its published ports, where they were changed since it was created.
    pub published: Option<Vec<PublishedPort>>,
    /// Its restart policy, where it was changed since it was created.
    pub restart: Option<Restart>,
    /// Its links on the default bridge, where some were removed since it was created.
    pub links: Option<Vec<String>>,
    /// What its health checks have said, if it has any and was started.
    pub health: Option<Health>,
    /// Whether it is gone, with its record.
    pub removed: bool,
}

impl State {
    /// The links of a container in this state, as `id:name`.
    pub(crate) fn links<'a>(&'a self, spec: &'a Spec) -> &'a [String] {
        self.links.as_ref().unwrap_or(&spec.network.links)
    }

    /// The state of a container that was just created.
    pub fn created() -> Self {
        Self {
            phase: Phase::Created,
            pid: None,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            stopped_by_hand: false,
            told: true,
            exits: 0,
            attachments: Vec::new(),
            user_namespace_base: None,
            limits: None,
            published: None,
            restart: None,
            links: None,
            health: None,
            removed: false,
        }
    }

    /// Its places in networks, as far as they exist.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Attachment, &Endpoint)> {
        let attachments = self.attachments.iter();
        attachments.filter_map(|attachment| Some((attachment, attachment.endpoint.as_ref()?)))
    }

    /// The network by which everything else of a family is reached: of those that lead anywhere the one with the highest
    /// priority, and of these the first by name.
    pub fn way_out(&self, is_ipv6: bool) -> Option<(&Attachment, &Endpoint)> {
        let leading = self.endpoints().filter(|(_, endpoint)| {
            endpoint
                .place(is_ipv6)
                .is_some_and(|place| place.gateway.is_some())
        });
        leading.min_by(|(a, _), (b, _)| {
            let priority = b.wish.gateway_priority.cmp(&a.wish.gateway_priority);
            priority.then_with(|| a.name.cmp(&b.name))
        })
    }
}

/// A container as it is at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name, without a slash.
    pub name: String,
    /// What it is.
    pub spec: Arc<Spec>,
    /// How it is.
    pub state: Arc<State>,
}

impl Snapshot {
    /// Its published ports as they are asked for now.
    pub fn published(&self) -> &[PublishedPort] {
        let changed = self.state.published.as_ref();
        changed.unwrap_or(&self.spec.network.published)
    }

    /// Its links as they are now, as `id:name`.
    pub fn links(&self) -> &[String] {
        self.state.links(&self.spec)
    }

    /// Its limits as they are now.
    pub fn limits(&self) -> &Limits {
        self.state.limits.as_ref().unwrap_or(&self.spec.limits)
    }

    /// Its restart policy as it is now.
    pub fn restart(&self) -> Restart {
        self.state.restart.unwrap_or(self.spec.lifecycle.restart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_removing_but_a_failure() {
        let all = [
            Phase::Created,
            Phase::Running,
            Phase::Paused,
            Phase::Restarting,
            Phase::Exited,
            Phase::Removing,
            Phase::Dead,
        ];
        for to in all {
            assert_eq!(Phase::Removing.may_become(to), to == Phase::Dead, "{to:?}");
            assert!(!Phase::Dead.may_become(to) || to == Phase::Removing);
            assert!(!to.may_become(Phase::Created), "{to:?}");
        }
        assert!(!Phase::Running.may_become(Phase::Removing));
    }
}
