//! `POST /images/create?fromSrc=…`: an image of a tar of a root file system, which is the request's body or at a URL.

use crate::distribution::{Teller, peer, platform, told};
use crate::http::{BodyReader, Error, Reply};
use crate::images::{PROGRESS_BYTES, attributes, signed, target};
use crate::server::Call;
use api_types as types;
use bytes::Bytes;
use engine::images::registry::Download;
use engine::images::{ImageId, ImportOptions};
use engine::{Engine, images};
use std::io;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub(crate) async fn create(call: Call<'_>) -> Reply {
    let source = { call.query.get("fromSrc") }
        .ok_or_else(|| Error::bad_request("missing parameter: fromSrc"))?;
    let changes = call.query.all("changes").iter();
    let message = match call.query.get("message") {
        Some(message) => message.to_owned(),
        None => format!("Imported from {source}"),
    };
    let options = ImportOptions {
        reference: target(&call.query)?,
        changes: changes
            .flat_map(|lines| lines.lines())
            .map(str::to_owned)
            .collect(),
        message,
        platform: platform(&call.query)?,
    };
    let (engine, peer) = (call.engine.clone(), peer(&call.request)?);
    if source == "-" {
        let body = BodyReader::new(call.request.into_body());
        return told(peer, move |teller| {
            let id = engine.images().import(body, &options)?;
            imported(&engine, teller, &id, &options);
            Ok(())
        })
        .await;
    }
    let url = match source.contains("://") {
        true => source.to_owned(),
        false => format!("http://{source}"),
    };
    told(peer, move |teller| {
        let runtime = Handle::current();
        let download = runtime.block_on(engine.download(&url, None))?;
        teller.say(types::JsonMessage {
            status: format!("Downloading from {url}"),
            ..types::JsonMessage::default()
        });
        let source = Source {
            download,
            runtime,
            teller,
            stop: teller.stop(),
            piece: Bytes::new(),
            done: 0,
            told: 0,
        };
        let id = engine.images().import(source, &options)?;
        imported(&engine, teller, &id, &options);
        Ok(())
    })
    .await
}

fn imported(engine: &Engine, teller: &Teller, id: &ImageId, options: &ImportOptions) {
    let id = id.to_string();
    if let Some(reference) = &options.reference {
        engine.image_event("tag", &id, attributes(&reference.familiar()));
    }
    engine.image_event("import", &id, attributes(&id));
    teller.say(types::JsonMessage {
        status: id,
        ..types::JsonMessage::default()
    });
}

/// What comes from a URL, told of as it comes.
struct Source<'a> {
    download: Download,
    runtime: Handle,
    teller: &'a Teller,
    stop: watch::Receiver<bool>,
    piece: Bytes,
    done: u64,
    told: u64,
}

impl Source<'_> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.runtime.block_on(async {
            tokio::select! {
                piece = self.download.next() => {
                    piece.map_err(|error| io::Error::other(images::Error::from(error)))
                }
                Ok(_) = self.stop.wait_for(|stopped| *stopped) => {
                    Err(io::Error::other(images::Error::Stopped))
                }
            }
        })
    }

    fn tell(&mut self) {
        let size = self.download.size;
        if self.done < self.told + PROGRESS_BYTES && size != Some(self.done) {
            return;
        }
        self.told = self.done;
        self.teller.say(types::JsonMessage {
            status: "Importing".to_owned(),
            progress: Some(types::JsonProgress {
                current: signed(self.done),
                total: size.map_or(-1, signed),
                ..types::JsonProgress::default()
            }),
            ..types::JsonMessage::default()
        });
    }
}

impl io::Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let Some(piece) = self.next()? else {
                return Ok(0);
            };
            self.done += piece.len() as u64;
            self.piece = piece;
            self.tell();
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
