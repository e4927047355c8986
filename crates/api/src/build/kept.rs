//! Contexts that are kept for the client's next build: `GET /build/context`, and what a build says of one.

use super::status;
use crate::http::{Error, Query, Reply, json};
use crate::server::Call;
use crate::socket::Caller;
use api_types as types;
use builder::{Base, Changes, Context, ContextName, Filling, KeptMarks};
use engine::Engine;
use http::{Request, StatusCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::block_in_place;

/// Who calls, where that is known for sure.
pub(super) fn owner<B>(request: &Request<B>) -> Option<String> {
    request.extensions().get::<Arc<Caller>>()?.owner()
}

/// `GET /build/context`: what the engine has of a context of this user.
pub(crate) fn kept(call: &Call<'_>) -> Reply {
    let none = || Error::not_found("no such context is kept");
    let name = call.query.get("name").unwrap_or_default();
    let name = owner(&call.request).and_then(|owner| ContextName::new(owner, name));
    let kept = block_in_place(|| {
        builder::kept_marks(call.engine, &name.ok_or_else(none)?).map_err(|error| status(&error))
    })?;
    let KeptMarks { generation, marks } = kept.ok_or_else(none)?;
    // Clients say nothing of names that are no text.
    let told = |(path, mark): (PathBuf, Vec<u8>)| {
        Some((
            path.into_os_string().into_string().ok()?,
            String::from_utf8(mark).ok()?,
        ))
    };
    let marks: std::collections::BTreeMap<_, _> = marks.into_iter().filter_map(told).collect();
    let bytes: usize = { marks.iter() }
        .map(|(path, mark)| path.len() + mark.len())
        .sum();
    match bytes <= types::MARKS_BYTES_MAX / 2 {
        true => json(&types::KeptContext { generation, marks }),
        // The client is to send everything.
        false => Err(none()),
    }
}

/// A context that is to be kept.
#[derive(Debug)]
pub(super) struct Keep {
    name: ContextName,
    /// What was sent is the difference to this generation.
    base: Option<String>,
}

impl Keep {
    /// What a client asks for; `None` where nothing is kept.
    pub(super) fn read(query: &Query, owner: Option<String>) -> Option<Self> {
        let name = ContextName::new(owner?, query.get("contextname")?)?;
        let base = query.get("contextbase").map(str::to_owned);
        Some(Self { name, base })
    }

    /// The context, of what is kept and what was sent.
    pub(super) fn fill(
        self,
        engine: &Engine,
        parts: &Context,
        sent: Context,
    ) -> Result<Context, Error> {
        let failed = |error: builder::Error| status(&error);
        let marks = parts.read(Path::new(types::PART_MARKS), types::MARKS_BYTES_MAX);
        let Some(marks) = marks.map_err(failed)? else {
            return Ok(sent);
        };
        let wrong = |error: serde_json::Error| Error::bad_request(format!("marks: {error}"));
        let changes: types::ContextChanges = serde_json::from_slice(&marks).map_err(wrong)?;
        let base = match &self.base {
            Some(generation) => Base::Generation(generation),
            None => Base::Nothing,
        };
        let filling = Filling::begin(engine, self.name, base).map_err(failed)?;
        let gone = || {
            let text = "the context that is kept is another one now: send everything";
            Error::new(StatusCode::CONFLICT, text.to_owned())
        };
        let mut filling = filling.ok_or_else(gone)?;
        let mark = |(path, mark): (String, String)| (PathBuf::from(path), mark.into_bytes());
        let changes = Changes {
            sent: changes.sent.into_iter().map(mark).collect(),
            gone: changes.gone.into_iter().map(PathBuf::from).collect(),
        };
        filling.merge(&sent, &changes).map_err(failed)?;
        Ok(filling.finish())
    }
}
