//! `/exec` and `/containers/{id}/exec`.

use crate::containers::size;
use crate::http::{Error, Reply, empty, json, json_body, json_with, read_json};
use crate::older;
use crate::server::Call;
use crate::streams;
use crate::version::Version;
use api_types as types;
use engine::Streams;
use engine::exec::{ExecConfig, ExecState};
use http::{Method, StatusCode};

pub(crate) async fn create(call: Call<'_>, id: &str) -> Reply {
    let mut body: types::ExecCreateRequest = read_json(call.request).await?;
    { call.version.lacks(older::EXEC) }.for_each(|undo| undo(&mut body));
    let config = ExecConfig {
        command: body.cmd.unwrap_or_default(),
        environment: body.env.unwrap_or_default(),
        working_dir: body.working_dir,
        user: body.user,
        terminal: body.tty,
        console_size: body.console_size.map(console_size),
        privileged: body.privileged,
        streams: Streams {
            stdin: body.attach_stdin,
            stdout: body.attach_stdout,
            stderr: body.attach_stderr,
        },
        detach_keys: body.detach_keys,
    };
    let exec = call.engine.exec_create(id, config)?;
    json_with(
        StatusCode::CREATED,
        &types::IdResponse {
            id: exec.id.clone(),
        },
    )
}

fn console_size([rows, columns]: [u32; 2]) -> (u16, u16) {
    (
        u16::try_from(rows).unwrap_or(0),
        u16::try_from(columns).unwrap_or(0),
    )
}

pub(crate) async fn route(method: &Method, id: &str, action: &str, call: Call<'_>) -> Reply {
    match (method, action) {
        (&Method::POST, "start") => start(call, id).await,
        (&Method::GET, "json") => inspect(&call, id),
        (&Method::POST, "resize") => {
            let (rows, columns) = size(&call)?;
            call.engine.exec_resize(id, rows, columns).await?;
            Ok(empty(StatusCode::OK))
        }
        _ => Err(Error::not_found("page not found")),
    }
}

async fn start(call: Call<'_>, id: &str) -> Reply {
    let Call {
        engine,
        request,
        version,
        ..
    } = call;
    // The body has to be read before the connection can be upgraded.
    let (parts, body) = request.into_parts();
    let mut body: types::ExecStartRequest = json_body(&parts.headers, body).await?;
    { version.lacks(older::EXEC_START) }.for_each(|undo| undo(&mut body));
    let exec = engine.exec_startable(id)?;
    if body.detach {
        engine.exec_start(id, true, None).await?;
        return Ok(empty(StatusCode::OK));
    }
    let keys = streams::detach_keys(Some(&exec.config.detach_keys))?;
    let mut request = http::Request::from_parts(parts, ());
    let (client, response) = streams::take(&mut request, !body.tty && version >= Version::of(42))?;
    let engine = engine.clone();
    let console_size = body.console_size.map(console_size);
    tokio::spawn(async move {
        let start = engine.exec_start(&exec.id, false, console_size);
        let terminals = streams::Terminals {
            process: exec.config.terminal,
            client: body.tty,
        };
        streams::serve_exec(client, start, terminals, keys, std::sync::Arc::clone(&exec)).await;
    });
    Ok(response)
}

fn inspect(call: &Call<'_>, id: &str) -> Reply {
    let exec = call.engine.exec(id)?;
    let config = &exec.config;
    let (running, exit_code, pid) = match exec.state() {
        ExecState::Created => (false, None, 0),
        ExecState::Running(pid) => (true, None, pid),
        ExecState::Exited(code) => (false, Some(code.into()), 0),
    };
    json(&types::ExecInspect {
        id: exec.id.clone(),
        running,
        exit_code,
        process_config: types::ExecProcessConfig {
            tty: config.terminal,
            entrypoint: config.command.first().cloned().unwrap_or_default(),
            arguments: Some(config.command.iter().skip(1).cloned().collect()),
            privileged: Some(config.privileged),
            user: config.user.clone(),
        },
        open_stdin: config.streams.stdin,
        open_stderr: config.streams.stderr,
        open_stdout: config.streams.stdout,
        can_remove: false,
        container_id: exec.container.clone(),
        detach_keys: Some(String::new()),
        pid: pid.into(),
    })
}
