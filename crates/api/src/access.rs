//! What a read-only socket serves: what there is and how it does, and no contents.
//!
//! The list is of what is allowed, so that a new operation is refused until somebody has thought of it. See ADR 15.

use crate::http::Error;
use http::{Method, StatusCode};

/// What the clients of a socket may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything, which is to be root.
    Full,
    /// To see objects and their state.
    ReadOnly,
}

impl Access {
    /// Refuses what may not be done. `segments` are those of the path behind the version.
    pub(crate) fn check(self, method: &Method, segments: &[&str]) -> Result<(), Error> {
        if self == Self::Full || tells_state(method, segments) {
            return Ok(());
        }
        let path = segments.join("/");
        Err(Error::new(
            StatusCode::FORBIDDEN,
            format!(
                "{method} /{path} is refused: this socket is read-only, and tells what there is, without contents and logs"
            ),
        ))
    }
}

fn tells_state(method: &Method, segments: &[&str]) -> bool {
    match (method, segments) {
        (&Method::HEAD, ["_ping"]) | (&Method::OPTIONS, _) => true,
        (&Method::GET, segments) => matches!(
            segments,
            ["_ping" | "version" | "info" | "events" | "plugins" | "volumes" | "networks"]
                | ["system", "df"]
                | ["containers" | "images", "json"]
                | ["containers", _, "json" | "top" | "stats" | "changes"]
                | ["images", .., "json" | "history"]
                | ["volumes" | "networks", _]
                | ["exec", _, "json"]
        ),
        _ => false,
    }
}

/// Variables of an environment without their values, which often are passwords.
pub(crate) fn without_values(environment: &mut [String]) {
    for variable in environment {
        if let Some(end) = variable.find('=') {
            variable.truncate(end + 1);
            variable.push_str("(hidden)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_socket_tells_state_and_no_contents() {
        let allowed = |method: Method, path: &str| {
            let segments: Vec<&str> = path.split('/').collect();
            Access::ReadOnly.check(&method, &segments).is_ok()
        };
        for path in [
            "_ping",
            "version",
            "info",
            "events",
            "system/df",
            "containers/json",
            "containers/x/json",
            "containers/x/stats",
            "containers/x/top",
            "containers/x/changes",
            "images/json",
            "images/a/b/json",
            "images/a/history",
            "volumes",
            "volumes/v",
            "networks",
            "networks/n",
            "exec/e/json",
        ] {
            assert!(allowed(Method::GET, path), "{path}");
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                assert!(!allowed(method, path), "{path}");
            }
        }
        for path in [
            "containers/x/attach/ws",
            "containers/x/archive",
            "containers/x/export",
            "containers/x/logs",
            "images/get",
            "images/a/get",
            "images/search",
            "distribution/a/json",
            "containers/x/checkpoints",
            "secrets",
            "debug/vars",
            "",
        ] {
            assert!(!allowed(Method::GET, path), "{path}");
            assert!(!allowed(Method::HEAD, path), "{path}");
        }
        assert!(allowed(Method::HEAD, "_ping") && !allowed(Method::HEAD, "containers/x/archive"));
    }

    #[test]
    fn values_of_variables_are_hidden() {
        let mut environment = ["PASSWORD=a=b", "EMPTY=", "NAME"].map(str::to_owned);
        without_values(&mut environment);
        assert_eq!(environment, ["PASSWORD=(hidden)", "EMPTY=(hidden)", "NAME"]);
    }
}
