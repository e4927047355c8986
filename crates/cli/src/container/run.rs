//! `hull run`: create, attach, wait, start.

use crate::app::{Arity, Command};
use crate::container::create::{not_run, prepare, send};
use crate::container::follow::{Follow, finish, start, start_request};
use crate::container::options::{CONTAINER_FLAGS, CREATE_FLAGS};
use crate::error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_NOT_RUN, Error, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::session::Session;
use crate::stdio::{self, Attach, Signals};

const RUN_FLAGS: &[Flag] = &[
    Flag::bool(
        "detach",
        "Run in the background and print the container's ID",
    )
    .short('d'),
    Flag::text("detach-keys", "Keys that detach from the container"),
    Flag::bool("sig-proxy", "Pass signals on to the process").default("true"),
];

pub(crate) const RUN: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a container from an image, or from a directory named with a leading / or .",
    aliases: &["container run", "run"],
    flags: &[RUN_FLAGS, CONTAINER_FLAGS, CREATE_FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: false,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let failed = |error: Error| not_run(session, "run", exit_code(&error), &error);
    let client = session.client().await.map_err(failed)?;
    let mut request = prepare(session, client, matches)
        .map_err(|error| not_run(session, "run", EXIT_NOT_RUN, &error))?;
    let detach = matches.on("detach");
    if detach {
        if matches.given("attach") {
            let problem = "conflicting options: cannot specify both --attach and --detach";
            return Err(Error::msg(problem));
        }
        request.attach_stdin = false;
        request.attach_stdout = false;
        request.attach_stderr = false;
        request.stdin_once = false;
    } else {
        stdio::check_stdin(request.attach_stdin, request.tty)?;
    }
    let attach = Attach {
        tty: request.tty,
        stdin: request.attach_stdin,
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
        detach_keys: session.detach_keys(matches),
    };
    let id = send(session, client, matches, request)
        .await
        .map_err(failed)?;
    let signals = Signals::catch(!detach && matches.on_unless("sig-proxy"))?;
    let code = match attach.stdin || attach.stdout || attach.stderr {
        true => {
            let follow = Follow {
                client,
                id: &id,
                attach,
                auto_remove: matches.on("rm"),
            };
            follow.start(&start_request(&id), signals).await
        }
        false => start(client, &start_request(&id))
            .await
            .and_then(|()| output::line(&id))
            .map(|()| 0),
    };
    match code {
        Err(error @ Error::NotStarted(_)) => Err(failed(error)),
        code => finish(code?),
    }
}

/// Docker's exit code for a failed start, from the engine's words: there is no other sign of it on the wire.
fn exit_code(error: &Error) -> u8 {
    let (Error::Client(client::Error::Status { message, .. })
    | Error::NotStarted(client::Error::Status { message, .. })) = error
    else {
        return EXIT_NOT_RUN;
    };
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    match () {
        () if says(&["executable file not found", "no such file or directory"]) => EXIT_NOT_FOUND,
        () if says(&["permission denied", "is a directory"]) => EXIT_NOT_EXECUTABLE,
        () => EXIT_NOT_RUN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_engines_words() {
        let code = |message: &str| {
            let status = 400.try_into().unwrap();
            exit_code(&Error::NotStarted(client::Error::Status {
                status,
                message: message.into(),
            }))
        };
        assert_eq!(code("exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(
            code("exec: \"/x\": stat /x: no such file or directory"),
            127
        );
        assert_eq!(code("exec: \"/etc\": is a directory"), 126);
        assert_eq!(
            code("exec: \"/etc/passwd\": permission denied: unknown"),
            126
        );
        assert_eq!(code("Conflict. The name is in use"), 125);
        assert_eq!(exit_code(&Error::msg("no such file or directory")), 125);
    }
}
