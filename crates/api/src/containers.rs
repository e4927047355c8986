//! `/containers` and `/commit`.

use crate::access::{Access, without_values};
use crate::checkpoints;
use crate::http::{Error, Reply, empty, json, json_each, json_with, read_json, send_line, stream};
use crate::older::{self, Asked};
use crate::server::Call;
use crate::version::Version;
use crate::wire::{self, summary::Selection};
use api_types as types;
use engine::Condition;
use engine::images::CommitOptions;
use http::StatusCode;
use std::collections::BTreeMap;
use std::time::Duration;

const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

/// How often statistics are streamed.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn list(call: &Call<'_>) -> Reply {
    let selection = Selection::read(&call.query)?;
    let mut times = BTreeMap::new();
    for name in ["before", "since"] {
        if let Some(key) = selection.named(name) {
            times.insert(name, call.engine.inspect(key)?.spec.created);
        }
    }
    let limit = call
        .query
        .number::<i64>("limit")?
        .filter(|limit| *limit > 0);
    let with_size = call.query.flag("size");
    let wanted = call
        .engine
        .list_where(|state| selection.may_want(state))
        .into_iter()
        .filter(|container| selection.wants(container, &times));
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    let sized = wanted.take(limit).map(|container| {
        let size = |_| call.engine.size(&container.spec.id);
        let sizes = with_size.then_some(()).map(size).transpose()?;
        Ok((container, sizes))
    });
    let sized: Vec<_> = sized.collect::<Result<_, Error>>()?;
    let link_names = call.engine.link_names();
    let (engine, version) = (call.engine.clone(), call.version);
    json_each(sized.into_iter().map(move |(container, sizes)| {
        let mut summary = wire::summary::summary(&engine, &container, sizes);
        let further = link_names.get(&container.spec.id).into_iter().flatten();
        summary.names.extend(further.map(|name| format!("/{name}")));
        { version.lacks(older::CONTAINERS) }.for_each(|undo| undo(&mut summary));
        summary
    }))
}

pub(crate) async fn create(call: Call<'_>) -> Reply {
    if hyper::body::Body::is_end_stream(call.request.body()) {
        return Err(Error::bad_request(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    let mut body: types::CreateRequest = read_json(call.request).await?;
    wire::defaults::apply(&call.engine.config().defaults, &mut body);
    if body.image.is_empty() {
        return Err(Error::bad_request("no image given: Config.Image is empty"));
    }
    let host = body.host_config.as_deref();
    let kernel_memory =
        kernel_memory_warning(call.version, host.map_or(0, |host| host.kernel_memory));
    let asked = Asked::of(call.version, body)?;
    let platform = crate::distribution::platform(&call.query)?;
    let mut request = wire::create::request(call.query.get("name"), asked.body, asked.below_binds)?;
    request.platform = platform;
    let (container, mut warnings) = call.engine.create(request)?;
    warnings.extend(kernel_memory.into_iter().chain(asked.warnings));
    json_with(
        StatusCode::CREATED,
        &types::CreateResponse {
            id: container.spec.id.clone(),
            warnings,
        },
    )
}

/// No kernel since 5.16 limits its own memory apart. The API has the limit up to 1.41; later ones pass over it.
fn kernel_memory_warning(version: Version, bytes: i64) -> Option<String> {
    let text = "Kernel memory limit is deprecated, and the kernel does not support it. Limitation discarded.";
    (bytes != 0 && version < Version::of(42)).then(|| text.to_owned())
}

pub(crate) async fn update(call: Call<'_>, id: &str) -> Reply {
    let mut body: types::UpdateRequest = read_json(call.request).await?;
    { call.version.lacks(older::UPDATE) }.for_each(|undo| undo(&mut body));
    let mut warnings = call.engine.update(id, wire::create::update(&body)?).await?;
    warnings.extend(kernel_memory_warning(call.version, body.kernel_memory));
    json(&types::UpdateResponse {
        warnings: Some(warnings),
    })
}

/// This engine's own: Docker's has no way to publish ports of a container that exists.
pub(crate) async fn change_ports(call: Call<'_>, id: &str) -> Reply {
    let body: types::PortsRequest = read_json(call.request).await?;
    let remove = wire::connections::published_ports(body.remove.iter())?;
    let add = wire::connections::published_ports(body.add.iter())?;
    call.engine.change_ports(id, &remove, &add).await?;
    Ok(empty(NO_CONTENT))
}

/// This engine's own: who can reach the ports.
pub(crate) fn explain_ports(call: &Call<'_>, id: &str) -> Reply {
    let port = call
        .query
        .get("port")
        .map(wire::connections::parse_port)
        .transpose()?;
    let explained = tokio::task::block_in_place(|| call.engine.explain_ports(id, port))?;
    let explained = explained
        .into_iter()
        .map(wire::connections::port_explanation);
    json(&explained.collect::<Vec<_>>())
}

pub(crate) async fn start(call: &Call<'_>, id: &str) -> Reply {
    let name = call.query.get("checkpoint").unwrap_or_default();
    let directory = call.query.get("checkpoint-dir");
    let checkpoint = (!name.is_empty()).then(|| checkpoints::named(name, directory));
    call.engine.start(id, checkpoint.as_ref()).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn stop(call: &Call<'_>, id: &str) -> Reply {
    call.engine
        .stop(id, call.query.get("signal"), call.query.number("t")?)
        .await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn restart(call: &Call<'_>, id: &str) -> Reply {
    call.engine
        .restart(id, call.query.get("signal"), call.query.number("t")?)
        .await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn kill(call: &Call<'_>, id: &str) -> Reply {
    call.engine.kill(id, call.query.get("signal")).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn pause(call: &Call<'_>, id: &str) -> Reply {
    call.engine.pause(id).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn unpause(call: &Call<'_>, id: &str) -> Reply {
    call.engine.unpause(id).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) fn rename(call: &Call<'_>, id: &str) -> Reply {
    call.engine
        .rename(id, call.query.get("name").unwrap_or_default())?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn resize(call: &Call<'_>, id: &str) -> Reply {
    let (rows, columns) = size(call)?;
    call.engine.resize(id, rows, columns).await?;
    Ok(empty(StatusCode::OK))
}

/// The parameters `h` and `w`.
pub(crate) fn size(call: &Call<'_>) -> Result<(u16, u16), Error> {
    Ok((
        call.query.number("h")?.unwrap_or(0),
        call.query.number("w")?.unwrap_or(0),
    ))
}

pub(crate) async fn remove(call: &Call<'_>, id: &str) -> Reply {
    if call.query.flag("link") {
        call.engine.remove_link(id).await?;
        return Ok(empty(NO_CONTENT));
    }
    call.engine
        .remove(id, call.query.flag("force"), call.query.flag("v"))
        .await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) fn inspect(call: &Call<'_>, id: &str) -> Reply {
    let container = call.engine.inspect(id)?;
    let sizes = if call.query.flag("size") {
        Some(call.engine.size(id)?)
    } else {
        None
    };
    let mut response = wire::inspect::inspect(call.engine, &container, sizes);
    let execs = call.engine.running_execs(id)?;
    response.exec_ids = (!execs.is_empty()).then_some(execs);
    if call.access == Access::ReadOnly
        && let Some(environment) = &mut response.config.env
    {
        without_values(environment);
    }
    { call.version.lacks(older::CONTAINER) }.for_each(|undo| undo(&mut response));
    json(&response)
}

pub(crate) async fn top(call: &Call<'_>, id: &str) -> Reply {
    let table = call
        .engine
        .top(id, call.query.get("ps_args").unwrap_or("-ef"))
        .await?;
    json(&types::TopResponse {
        processes: Some(table.rows),
        titles: Some(table.titles),
    })
}

/// Answers at once, with a body that comes when the wait is over: the client knows that nothing is missed. Before 1.30 the whole
/// answer comes then.
pub(crate) async fn wait(call: &Call<'_>, id: &str) -> Reply {
    let condition = match call.query.get("condition").unwrap_or("not-running") {
        "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Error::bad_request(format!("invalid condition: {other:?}"))),
    };
    let over = call.engine.wait(id, condition)?;
    let answer = |exit: engine::Exit| types::WaitResponse {
        error: exit.error.map(|message| types::WaitExitError { message }),
        status_code: exit.code.into(),
    };
    if call.version < Version::of(30) {
        return json(&answer(over.await));
    }
    // There was no way yet to tell of a removal that fails but to say nothing.
    let silent = condition == Condition::Removed && call.version < Version::of(34);
    let (pieces, response) = stream("application/json");
    tokio::spawn(async move {
        let exit = tokio::select! {
            exit = over => exit,
            () = pieces.closed() => return,
        };
        if !(silent && exit.error.is_some()) {
            send_line(&pieces, &answer(exit)).await;
        }
    });
    Ok(response)
}

pub(crate) async fn commit(call: Call<'_>) -> Reply {
    let id = call
        .query
        .get("container")
        .ok_or_else(|| Error::bad_request("missing parameter: container"))?
        .to_owned();
    let reference = crate::images::target(&call.query)?;
    let body: types::Config = read_json(call.request).await?;
    let mut changes = wire::changes::instructions(&body)?;
    let lines = call.query.all("changes").iter();
    changes.extend(lines.flat_map(|lines| lines.lines()).map(str::to_owned));
    let options = CommitOptions {
        author: call.query.get("author").unwrap_or_default().to_owned(),
        message: call.query.get("comment").unwrap_or_default().to_owned(),
        changes,
        reference,
        ..CommitOptions::default()
    };
    let pause = call.query.flag_or("pause", true);
    let image = call.engine.commit(&id, options, pause).await?;
    json_with(
        StatusCode::CREATED,
        &types::IdResponse {
            id: image.to_string(),
        },
    )
}

pub(crate) async fn stats(call: &Call<'_>, id: &str) -> Reply {
    let live = call.query.flag_or("stream", true);
    let container = call.engine.inspect(id)?;
    let id = container.spec.id.clone();
    let first = sample(call.engine, &id, None).await?;
    if !live {
        if call.query.flag("one-shot") {
            return json(&first);
        }
        tokio::time::sleep(STATS_INTERVAL).await;
        return json(&sample(call.engine, &id, Some(&first)).await?);
    }
    let (pieces, response) = stream("application/json");
    let engine = call.engine.clone();
    tokio::spawn(async move {
        let mut last = first;
        while send_line(&pieces, &last).await {
            tokio::time::sleep(STATS_INTERVAL).await;
            match sample(&engine, &id, Some(&last)).await {
                Ok(next) => last = next,
                // The container is gone.
                Err(_) => return,
            }
        }
    });
    Ok(response)
}

/// One measurement; of a container that does not run, an empty one, as Docker's.
async fn sample(
    engine: &engine::Engine,
    id: &str,
    before: Option<&types::StatsResponse>,
) -> Result<types::StatsResponse, Error> {
    let container = engine.inspect(id)?;
    let mut response = types::StatsResponse {
        name: format!("/{}", container.name),
        id: id.to_owned(),
        ..types::StatsResponse::default()
    };
    if !container.state.phase.is_running() {
        return Ok(response);
    }
    let stats = engine.stats(id).await?;
    response.read = jiff::Timestamp::now().to_string();
    wire::stats::fill(&mut response, &stats, container.state.pid);
    response.network_rate = wire::connections::network_rate(container.limits());
    if let Some(before) = before {
        response.preread.clone_from(&before.read);
        response.precpu_stats = before.cpu_stats.clone();
    }
    Ok(response)
}
