//! `hull events`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::go::template::Template;
use crate::go::time;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::EventMessage;
use client::Request;
use jiff::Timestamp;

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Show only events with this property (name=value)",
    )
    .short('f')
    .check(keyvalue::check_filter),
    Flag::text("format", "How to show them: json, or a Go template"),
    Flag::text(
        "since",
        "Show also events since a time (2013-01-02T13:23:37Z) or so long ago (42m)",
    ),
    Flag::text("until", "End at this time"),
];

pub(crate) const EVENTS: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what happens, as it happens",
    aliases: &["system events", "events"],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let format = match matches.text("format") {
        "" => Format::Line,
        "json" | "{{json .}}" => Format::Json,
        text => Format::Template(Box::new(
            Template::parse(text).map_err(Error::InspectTemplate)?,
        )),
    };
    let now = Timestamp::now();
    let moment = |flag| match matches.text(flag) {
        "" => Ok(None),
        text => {
            let invalid = |reason| Error::msg(format!("invalid value for --{flag}: {reason}"));
            time::moment(text, now).map(Some).map_err(invalid)
        }
    };
    let request = Request::get(&["events"])
        .query_some("since", moment("since")?)
        .query_some("until", moment("until")?)
        .query_some(
            "filters",
            keyvalue::filters(matches.list("filter")).to_query(),
        );
    let mut events = session
        .client()
        .await?
        .send(&request)
        .await?
        .lines::<EventMessage>();
    while let Some(event) = events.next().await? {
        output::line(&format.render(&event)?)?;
    }
    Ok(())
}

enum Format {
    Line,
    Json,
    Template(Box<Template>),
}

impl Format {
    fn render(&self, event: &EventMessage) -> Result<String> {
        let json = || serde_json::to_value(event).expect("an event has only string keys");
        match self {
            Self::Line => Ok(line(event)),
            // Not by way of a value, which would sort the fields.
            Self::Json => Ok(serde_json::to_string(event).expect("an event has only string keys")),
            Self::Template(template) => template.render_struct(&json()).map_err(Error::Template),
        }
    }
}

fn line(event: &EventMessage) -> String {
    const NANOS: i64 = 1_000_000_000;
    let nanos = if event.time_nano == 0 {
        event.time.saturating_mul(NANOS)
    } else {
        event.time_nano
    };
    let attributes = event.actor.attributes.iter().flatten();
    let attributes: Vec<String> = attributes
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let attributes = match attributes.is_empty() {
        true => String::new(),
        false => format!(" ({})", attributes.join(", ")),
    };
    format!(
        "{} {} {} {}{attributes}",
        time::local_rfc3339(nanos),
        event.kind,
        event.action,
        event.actor.id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let json = br#"{"status":"die","id":"abc","from":"x","Type":"container","Action":"die",
            "Actor":{"ID":"abc","Attributes":{"name":"n","exitCode":"0"}},"scope":"local","time":5,"timeNano":5000000001}"#;
        let event: EventMessage = api_types::from_slice(json).unwrap();
        assert!(
            line(&event).ends_with(" container die abc (exitCode=0, name=n)"),
            "{}",
            line(&event)
        );
        let template = "{{.Type}} {{.ID}} {{.Actor.ID}} {{.TimeNano}} {{json .Actor}}";
        let text = Format::Template(Box::new(Template::parse(template).unwrap()))
            .render(&event)
            .unwrap();
        assert_eq!(
            text,
            r#"container abc abc 5000000001 {"Attributes":{"exitCode":"0","name":"n"},"ID":"abc"}"#
        );
        let json = Format::Json.render(&event).unwrap();
        let expected = r#"{"status":"die","id":"abc","from":"x","Type":"container","#;
        assert!(json.starts_with(expected), "{json}");
    }
}
