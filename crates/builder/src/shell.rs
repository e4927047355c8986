//! A shell in a step that has failed: a container for the client on what the command has written, with its environment,
//! directory, user and mounts.
//!
//! Invariant: the container, and the layer that it stands on, go before the build ends.

use crate::container::Container;
use crate::error::{Doing, Error, Result};
use crate::progress::Event;
use crate::stage::Stage;
use engine::model::{CreateRequest, ProcessSpec};
use images::copy::Rest;

/// What is run where the Dockerfile names no shell.
const SHELL: &str = "/bin/sh";

/// Offers the client a shell in what is left of a command, and waits until it has no more use for it. `request` is what the
/// command was run by, `failed` its container.
///
/// # Errors
/// The client is gone. A shell that cannot be had is a warning: the step's failure matters more.
pub(crate) fn offer(
    stage: &Stage<'_, '_>,
    request: CreateRequest,
    failed: &Container<'_, '_>,
    why: &Error,
) -> Result<()> {
    // The first failure ends what else goes on, which is no failure of its own.
    if matches!(why, Error::Cancelled) || !stage.build.give_up() {
        return Ok(());
    }
    match enter(stage, request, failed, why) {
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(error) => {
            let text = format!("the failed step cannot be entered: {}", error.chain());
            stage.build.tell(&Event::Warning(&text));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn enter(
    stage: &Stage<'_, '_>,
    request: CreateRequest,
    failed: &Container<'_, '_>,
    why: &Error,
) -> Result<()> {
    let build = stage.build;
    let snapshot = build.engine.writable_layer(&failed.id);
    let snapshot = snapshot.doing(|| "find what the command has written".to_owned())?;
    // All else was given up just now.
    let stop = || *build.request.stop.borrow();
    let written = build
        .images
        .make_layer(&snapshot, Rest::default(), None, &stop);
    let written = written.doing(|| "keep what the command has written".to_owned())?;
    let mut layers = stage.layers.clone();
    layers.extend(written.as_ref().map(|(layer, _)| *layer));
    let on = layers.last().map(ToString::to_string);
    let shell = stage.config.config.shell.first();
    let request = CreateRequest {
        image: on.unwrap_or_else(|| "scratch".to_owned()),
        command: Some(vec![shell.map_or(SHELL, String::as_str).to_owned()]),
        process: ProcessSpec {
            terminal: true,
            open_stdin: true,
            stdin_once: true,
            ..request.process
        },
        ..request
    };
    let container = Container::create(build, Some(stage.number), layers, request)?;
    build.tell(&Event::Shell {
        step: stage.number,
        container: &container.id,
        reason: &why.chain(),
    });
    container.lend()
}
