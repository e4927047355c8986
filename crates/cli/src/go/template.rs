//! Go templates with Docker's functions: what `--format` takes.

mod functions;
mod values;

use functions::{FUNCTIONS, HEADER_FUNCTIONS};
use gtmpl_ng::{Context, Func, Template as Engine, Value};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use values::Extras;

/// Where a row keeps its labels for `{{.Label "name"}}`. No template can name it.
const LABELS: &str = "\0labels";

/// A parsed template.
pub(crate) struct Template {
    text: String,
    functions: &'static [(&'static str, Func)],
    /// Its parts, where it is made of nothing but text and fields: most are, and a row of a list is then put together in a
    /// fraction of the time.
    plain: Option<Rc<[Part]>>,
    /// The template engine, once it is needed: it parses on a thread of its own.
    engine: OnceCell<Engine>,
}

/// A part of a template that is made of text and fields.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

/// The parts of a template, if `{{.Name}}` is all it has besides text.
fn parts(text: &str) -> Option<Rc<[Part]>> {
    let mut pieces = text.split("{{");
    let mut parts = vec![Part::Text(pieces.next()?.to_owned())];
    for piece in pieces {
        let (name, text) = piece.strip_prefix('.')?.split_once("}}")?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
        if !is_name {
            return None;
        }
        parts.push(Part::Field(name.to_owned()));
        parts.push(Part::Text(text.to_owned()));
    }
    Some(parts.into())
}

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::with_functions(text, FUNCTIONS)
    }

    /// Parses a template to render column titles: functions leave their argument as it is.
    pub(crate) fn parse_header(text: &str) -> Result<Self, String> {
        Self::with_functions(text, HEADER_FUNCTIONS)
    }

    fn with_functions(
        text: &str,
        functions: &'static [(&'static str, Func)],
    ) -> Result<Self, String> {
        let template = Self {
            text: text.to_owned(),
            functions,
            plain: parts(text),
            engine: OnceCell::new(),
        };
        if template.plain.is_none() {
            template.engine()?;
        }
        Ok(template)
    }

    fn engine(&self) -> Result<&Engine, String> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let mut engine = Engine::default();
        engine.add_funcs(self.functions);
        engine
            .parse(call_label(&self.text))
            .map_err(|error| error.to_string())?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// A row that takes the fields that this template has, or all where that is not plain to see.
    pub(crate) fn row(&self) -> Row {
        Row {
            wanted: self.plain.as_ref().map(Rc::clone),
            fields: Vec::new(),
        }
    }

    /// Renders one row of a list.
    pub(crate) fn render_row(&self, row: Row) -> Result<String, String> {
        match self.plain.as_ref().and_then(|parts| row.fill(parts)) {
            Some(text) => Ok(text),
            None => self.render(&row.into_value()),
        }
    }

    /// Renders one value.
    pub(crate) fn render(&self, value: &Value) -> Result<String, String> {
        self.engine()?
            .render(&Context::from(value.clone()))
            .map_err(|error| {
                // The engine shows the whole value that lacks a field, which may be pages.
                let text = error.to_string();
                match text.find(" in map[") {
                    Some(end) => text[..end].to_owned(),
                    None => text,
                }
            })
    }

    /// Renders a JSON document that is one of Docker's structs: an unknown field is an error, one that is merely absent is
    /// nil, and Go's spelling of a field works as well as JSON's.
    pub(crate) fn render_struct(&self, json: &serde_json::Value) -> Result<String, String> {
        self.render(&Extras::named_in(&self.text).value(json))
    }
}

/// Docker writes `\t` and `\n` in a format for the characters.
pub(crate) fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// A value with named fields, in which a missing one is an error.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The template whose fields are taken. None: all are.
    wanted: Option<Rc<[Part]>>,
    fields: Vec<(&'static str, Value)>,
}

impl Row {
    /// Sets a field.
    pub(crate) fn set(self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set_with(name, || value)
    }

    /// Sets a field to what takes time to make, if it is wanted.
    pub(crate) fn set_with<T: Into<Value>>(
        mut self,
        name: &'static str,
        value: impl FnOnce() -> T,
    ) -> Self {
        let is_of = |part: &Part| matches!(part, Part::Field(field) if field == name);
        if self
            .wanted
            .as_ref()
            .is_none_or(|parts| parts.iter().any(is_of))
        {
            self.fields.push((name, value().into()));
        }
        self
    }

    /// Sets what `{{.Label "name"}}` finds, and the field `Labels`.
    pub(crate) fn labels(self, labels: Option<&BTreeMap<String, String>>) -> Self {
        let labels = labels.into_iter().flatten();
        let map = || {
            let named =
                { labels.clone() }.map(|(name, value)| (name.clone(), value.as_str().into()));
            Value::Map(named.collect())
        };
        let list = || {
            let words = { labels.clone() }.map(|(name, value)| format!("{name}={value}"));
            words.collect::<Vec<_>>().join(",")
        };
        self.set_with(LABELS, map).set_with("Labels", list)
    }

    /// The parts with the fields filled in. None: a field is not there, or not text.
    fn fill(&self, parts: &[Part]) -> Option<String> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field(name) => match self.fields.iter().find(|(field, _)| field == name)? {
                    (_, Value::String(value)) => text.push_str(value),
                    _ => return None,
                },
            }
        }
        Some(text)
    }

    /// As a template's value.
    pub(crate) fn into_value(self) -> Value {
        let named = self.fields.into_iter();
        Value::Object(
            named
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }
}

/// Methods of Docker's rows take no arguments but one: `{{.Label "name"}}` and `{{$row.Label "name"}}`. They become calls of a
/// function, `{{label . "name"}}`.
fn call_label(text: &str) -> String {
    const METHOD: &str = ".Label";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(METHOD) {
        let (before, after) = (&rest[..at], &rest[at + METHOD.len()..]);
        let argument = after.trim_start();
        let is_call = argument.len() < after.len()
            && argument.starts_with(['"', '`', '$', '('])
            && out.len() + before.len() > 0;
        let name_start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .map_or(0, |index| index + 1);
        let variable = &before[name_start..];
        if is_call && (variable.is_empty() || variable.starts_with('$')) {
            out.push_str(&before[..name_start]);
            out.push_str("label ");
            out.push_str(if variable.is_empty() { "." } else { variable });
        } else {
            out.push_str(before);
            out.push_str(METHOD);
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::values::from_json;
    use super::*;

    fn render(template: &str, value: &Value) -> Result<String, String> {
        Template::parse(template)?.render(value)
    }

    #[test]
    fn what_is_only_text_and_fields_is_filled_in_as_otherwise() {
        let row = || Row::default().set("ID", "1").set("Name", "a{{b");
        for text in ["{{.ID}}", "x{{.ID}}\t{{.Name}}y", "", "{{"] {
            let template = Template::parse(text);
            let Ok(template) = template else { continue };
            let rendered = template.render(&row().into_value());
            assert_eq!(template.render_row(row()), rendered, "{text}");
            assert!(template.plain.is_some(), "{text}");
        }
        for text in [
            "{{ .ID }}",
            "{{.ID.x}}",
            "{{upper .ID}}",
            "{{.}}",
            "{{- .ID}}",
        ] {
            assert_eq!(parts(text), None, "{text}");
        }
        let template = Template::parse("{{.Nope}}").unwrap();
        assert!(template.render_row(row()).is_err());
    }

    #[test]
    fn dockers_functions() {
        let json = serde_json::json!({"Names": ["a", "b"], "S": "one two_x", "N": 7, "E": "",
            "M": {"z": 1, "a": null, "f": 1.5, "u": u64::MAX}});
        let value = from_json(&json);
        for (template, expected) in [
            (r#"{{join .Names ","}}"#, "a,b"),
            (r#"{{upper .S}} {{title .S}}"#, "ONE TWO_X One Two_x"),
            (
                r#"{{json .M}}"#,
                r#"{"a":null,"f":1.5,"u":18446744073709551615,"z":1}"#,
            ),
            (r#"{{truncate .S 3}}|{{truncate .S 99}}"#, "one|one two_x"),
            (r#"{{pad .S 1 2}}|{{pad .E 5 5}}|"#, " one two_x  ||"),
            (r#"{{index (split .S " ") 1}}"#, "two_x"),
            (
                r#"{{range $i, $n := .Names}}{{$i}}={{$n}} {{end}}"#,
                "0=a 1=b ",
            ),
            (
                r#"{{if gt .N 5}}big{{else}}small{{end}}{{len .Names}}"#,
                "big2",
            ),
            (r#"{{printf "%05d %q" .N .S}}"#, "00007 \"one two_x\""),
            (r#"{{.Missing}}"#, "<no value>"),
            (r#"{{with .M}}{{.z}}{{end}}{{println "x"}}"#, "1x\n"),
        ] {
            assert_eq!(
                render(template, &value).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
        for template in [
            "{{.S",
            "{{nope .S}}",
            "{{upper .N}}",
            "{{pad .S 1 99999999}}",
            "{{join .S 1}}",
        ] {
            assert!(render(template, &value).is_err(), "{template}");
        }
    }

    #[test]
    fn structs_have_gos_names_and_absent_fields() {
        let json = serde_json::json!({"Id": "x", "State": {"Pid": 7}, "HostConfig": {"NanoCpus": 5, "Init": true},
            "Config": {"Labels": {"a.b": "c"}}, "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "8080"}]}}});
        let render = |template: &str| Template::parse(template)?.render_struct(&json);
        for (template, expected) in [
            (
                "{{.ID}} {{.Id}} {{.State.Pid}} {{.HostConfig.NanoCPUs}}",
                "x x 7 5",
            ),
            (
                "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
                "none",
            ),
            (
                r#"{{index .Config.Labels "a.b"}} {{index .Config.Labels "no"}}"#,
                "c <no value>",
            ),
            (
                r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#,
                "8080",
            ),
            (
                r#"{{range $p, $b := .NetworkSettings.Ports}}{{$p}}{{(index $b 0).HostPort}}{{end}}"#,
                "80/tcp8080",
            ),
            (
                "{{json .State}} {{json .HostConfig}}",
                r#"{"Pid":7} {"Init":true,"NanoCpus":5}"#,
            ),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
        assert_eq!(
            render("{{.Nope}}").unwrap_err(),
            "template: :1:3:5:no field `Nope`"
        );
        assert!(render("{{.State.Nope}}").is_err());
    }

    #[test]
    fn rows_have_labels_and_refuse_unknown_fields() {
        let labels = BTreeMap::from([("com.x".to_owned(), "1".to_owned())]);
        let row = Row::default()
            .set("ID", "abc")
            .labels(Some(&labels))
            .into_value();
        assert_eq!(
            render(r#"{{.Label "com.x"}}{{.Label "no"}}|{{.Labels}}"#, &row).unwrap(),
            "1|com.x=1"
        );
        assert_eq!(
            render(r#"{{$r := .}}{{if $r.Label "com.x"}}y{{end}}"#, &row).unwrap(),
            "y"
        );
        assert_eq!(
            render("{{json .}}", &row).unwrap(),
            r#"{"ID":"abc","Labels":"com.x=1"}"#
        );
        assert!(render("{{.Nope}}", &row).is_err());
        let header = Template::parse_header(r#"{{upper .ID}} {{.Label "com.my-name"}}"#).unwrap();
        assert_eq!(header.render(&row).unwrap(), "abc my name");
    }
}
