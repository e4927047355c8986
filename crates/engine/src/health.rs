//! Health checks: what a container is asked, how it answered, and what follows.
//!
//! A check is an exec like any other, with its events. The monitor lives in the task that follows a run, and ends with it; a new
//! engine starts one for every container that it finds running, with what the record says of the checks before. The rules (what
//! counts in the start period, when the status changes) are Docker's.
//!
//! ```text
//! Starting ──check succeeds──▶ Healthy ◀──succeeds── Unhealthy
//!     └─────retries failures, none of them counted in the start period ─────▶ Unhealthy; so does the end of the run
//! ```

mod monitor;

pub(crate) use monitor::monitor;

use crate::error::{Error, Result};
use crate::model::Spec;
use jiff::Timestamp;
use oci::image::{Config as ImageConfig, Healthcheck};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Of a check that says nothing of it.
const INTERVAL_NS: i64 = 30_000_000_000;
const TIMEOUT_NS: i64 = 30_000_000_000;
const START_INTERVAL_NS: i64 = 5_000_000_000;
const RETRIES: i64 = 3;

/// The shortest time that a check can ask for: below it, it would be all that the container does.
const TIME_NS_MIN: i64 = 1_000_000;

/// How many results are kept.
const RESULTS_MAX: usize = 5;

/// The label of a request by which its container is acted on when it becomes unhealthy.
pub const ON_FAILURE_LABEL: &str = "hull.health-on-failure";

/// How to find out whether a container is well. Times are in nanoseconds; 0 is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`; empty: nothing is checked.
    pub test: Vec<String>,
    /// What `CMD-SHELL` is executed by.
    pub shell: Vec<String>,
    /// Between the end of a check and the next.
    pub interval_ns: i64,
    /// How long a check may take.
    pub timeout_ns: i64,
    /// After the start, when failures do not count.
    pub start_period_ns: i64,
    /// Between two checks of the start period, until one succeeds.
    pub start_interval_ns: i64,
    /// Failures in a row that make a container unhealthy.
    pub retries: i64,
    /// What then follows.
    pub on_unhealthy: OnUnhealthy,
}

/// What follows when a container has become unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnhealthy {
    /// Everybody is told.
    #[default]
    Nothing,
    /// It is restarted, whatever its restart policy.
    Restart,
    /// It is stopped, as by hand.
    Stop,
    /// It is killed, and its restart policy decides.
    Kill,
}

impl OnUnhealthy {
    /// Reads the label's value.
    ///
    /// # Errors
    /// Another word.
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "none" => Ok(Self::Nothing),
            "restart" => Ok(Self::Restart),
            "stop" => Ok(Self::Stop),
            "kill" => Ok(Self::Kill),
            other => Err(Error::invalid(format!(
                "invalid label {ON_FAILURE_LABEL}={other}: it is none, restart, stop or kill"
            ))),
        }
    }
}

/// How well a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// No check has succeeded yet, nor have enough failed.
    Starting,
    /// The last check succeeded, or too few have failed since one did.
    Healthy,
    /// Too many checks in a row have failed, or it does not run.
    Unhealthy,
}

impl Status {
    /// The word Docker's clients know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What the checks of a container have said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How well it is.
    pub status: Status,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last results, oldest first.
    pub results: Vec<CheckResult>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 is well.
    pub exit_code: i32,
    /// What it printed, cut.
    pub output: String,
}

impl Health {
    /// At the start of a run, after those of earlier runs.
    fn starting(results: Vec<CheckResult>) -> Self {
        Self {
            status: Status::Starting,
            failing_streak: 0,
            results,
        }
    }

    fn add(&mut self, result: CheckResult, check: &Check, started_at: Timestamp) {
        let (exit_code, began) = (result.exit_code, result.start);
        if self.results.len() >= RESULTS_MAX {
            self.results.drain(..=self.results.len() - RESULTS_MAX);
        }
        self.results.push(result);
        if exit_code == 0 {
            self.failing_streak = 0;
            self.status = Status::Healthy;
            return;
        }
        if self.status == Status::Starting && began < check.start_period_end(started_at) {
            return;
        }
        self.failing_streak += 1;
        if self.failing_streak >= or_default(check.retries, RETRIES) {
            self.status = Status::Unhealthy;
        }
    }
}

fn or_default(value: i64, default: i64) -> i64 {
    if value == 0 { default } else { value }
}

fn duration(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

impl Check {
    /// What a request and its image say together: the request's words, else the image's. None: neither says anything.
    pub(crate) fn merge(request: Option<Self>, image: &ImageConfig) -> Result<Option<Self>> {
        let from_image = image.healthcheck.as_ref().map(Self::of_image);
        let mut check = match (request, from_image) {
            (None, None) => return Ok(None),
            (Some(check), None) | (None, Some(check)) => check,
            (Some(own), Some(image)) => Self {
                test: if own.test.is_empty() {
                    image.test
                } else {
                    own.test
                },
                interval_ns: or_default(own.interval_ns, image.interval_ns),
                timeout_ns: or_default(own.timeout_ns, image.timeout_ns),
                start_period_ns: or_default(own.start_period_ns, image.start_period_ns),
                start_interval_ns: or_default(own.start_interval_ns, image.start_interval_ns),
                retries: or_default(own.retries, image.retries),
                ..own
            },
        };
        check.shell = image.shell.clone();
        check.validate()?;
        Ok(Some(check))
    }

    fn of_image(image: &Healthcheck) -> Self {
        Self {
            test: image.test.clone(),
            interval_ns: image.interval,
            timeout_ns: image.timeout,
            start_period_ns: image.start_period,
            start_interval_ns: image.start_interval,
            retries: image.retries,
            ..Self::default()
        }
    }

    fn validate(&self) -> Result<()> {
        let times = [
            ("Interval", self.interval_ns),
            ("Timeout", self.timeout_ns),
            ("StartPeriod", self.start_period_ns),
            ("StartInterval", self.start_interval_ns),
        ];
        for (name, time) in times {
            if time != 0 && time < TIME_NS_MIN {
                return Err(Error::invalid(format!(
                    "{name} in Healthcheck cannot be less than 1ms"
                )));
            }
        }
        if self.retries < 0 {
            return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
        }
        let known = match self.test.first().map(String::as_str) {
            None | Some("NONE") => true,
            Some("CMD") => self.test.len() > 1,
            Some("CMD-SHELL") => self.test.len() == 2,
            Some(_) => false,
        };
        if !known {
            return Err(Error::invalid(format!(
                "invalid test of the health check: {:?}: it is [\"NONE\"], [\"CMD\", …] or [\"CMD-SHELL\", line]",
                self.test
            )));
        }
        Ok(())
    }

    /// What is executed; None: nothing.
    fn command(&self) -> Option<Vec<String>> {
        match self.test.split_first() {
            Some((kind, rest)) if kind == "CMD" => Some(rest.to_vec()),
            Some((kind, rest)) if kind == "CMD-SHELL" => {
                let shell = match &self.shell[..] {
                    [] => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
                    shell => shell.to_vec(),
                };
                Some([&shell[..], rest].concat())
            }
            _ => None,
        }
    }

    fn start_period_end(&self, started_at: Timestamp) -> Timestamp {
        started_at
            .checked_add(duration(self.start_period_ns))
            .unwrap_or(Timestamp::MAX)
    }

    /// How long to wait before the next check.
    fn wait(&self, status: Status, started_at: Timestamp, now: Timestamp) -> Duration {
        let in_start_period = now < self.start_period_end(started_at);
        duration(if in_start_period && status == Status::Starting {
            or_default(self.start_interval_ns, START_INTERVAL_NS)
        } else {
            or_default(self.interval_ns, INTERVAL_NS)
        })
    }
}

/// The health of a run that begins; None: nothing is checked.
pub(crate) fn at_start(spec: &Spec, before: Option<Health>) -> Option<Health> {
    spec.health.as_ref().and_then(Check::command)?;
    Some(Health::starting(
        before.map(|health| health.results).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(start: i64, exit_code: i32) -> CheckResult {
        let start = Timestamp::from_second(start).unwrap();
        CheckResult {
            start,
            end: start,
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn failures_of_the_start_period_do_not_count() {
        let check = Check {
            start_period_ns: 10_000_000_000,
            retries: 2,
            ..Check::default()
        };
        let began = Timestamp::from_second(100).unwrap();
        let mut health = Health::starting(Vec::new());
        let steps = [
            (101, 1, Status::Starting, 0),
            (109, 1, Status::Starting, 0),
            (110, 1, Status::Starting, 1),
            (111, 0, Status::Healthy, 0),
            (112, -1, Status::Healthy, 1),
            (113, 3, Status::Unhealthy, 2),
            (114, 0, Status::Healthy, 0),
        ];
        for (at, code, status, streak) in steps {
            health.add(result(at, code), &check, began);
            assert_eq!((health.status, health.failing_streak), (status, streak));
        }
        assert_eq!(health.results.len(), RESULTS_MAX);
        assert_eq!(health.results[0].start.as_second(), 110);
    }

    #[test]
    fn once_healthy_the_start_period_is_over() {
        let check = Check {
            start_period_ns: 10_000_000_000,
            start_interval_ns: 1_000_000_000,
            interval_ns: 20_000_000_000,
            retries: 1,
            ..Check::default()
        };
        let began = Timestamp::from_second(100).unwrap();
        let now = Timestamp::from_second(101).unwrap();
        let wait = |status| check.wait(status, began, now).as_secs();
        assert_eq!((wait(Status::Starting), wait(Status::Healthy)), (1, 20));
        let mut health = Health::starting(Vec::new());
        health.add(result(101, 0), &check, began);
        health.add(result(102, 1), &check, began);
        assert_eq!(health.status, Status::Unhealthy);
    }

    #[test]
    fn what_the_request_leaves_out_is_the_images() {
        let image = ImageConfig {
            healthcheck: Some(Healthcheck {
                test: ["CMD-SHELL", "check"].map(str::to_owned).to_vec(),
                interval: 7_000_000,
                retries: 9,
                ..Healthcheck::default()
            }),
            shell: ["/bin/ash", "-ec"].map(str::to_owned).to_vec(),
            ..ImageConfig::default()
        };
        let own = Check {
            retries: 2,
            ..Check::default()
        };
        let merged = Check::merge(Some(own), &image).unwrap().unwrap();
        assert_eq!((merged.interval_ns, merged.retries), (7_000_000, 2));
        assert_eq!(merged.command().unwrap(), ["/bin/ash", "-ec", "check"]);
        let none = Check {
            test: vec!["NONE".to_owned()],
            ..Check::default()
        };
        let merged = Check::merge(Some(none), &image).unwrap().unwrap();
        assert_eq!(merged.command(), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |test: &[&str], interval_ns| Check {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            interval_ns,
            ..Check::default()
        };
        for bad in [
            with(&["CMD"], 0),
            with(&["CMD-SHELL"], 0),
            with(&["CMD-SHELL", "a", "b"], 0),
            with(&["RUN", "a"], 0),
            with(&["CMD", "a"], 999_999),
            with(&["CMD", "a"], -1),
        ] {
            assert!(Check::merge(Some(bad), &ImageConfig::default()).is_err());
        }
    }
}
