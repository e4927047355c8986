//! Go templates with Docker's functions: what `--format` takes.

use gtmpl_ng::{Context, Func, FuncError, Template as Engine, Value};
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

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
        let named = |name: &str| self.text.contains(name);
        let extras = Extras {
            optional: OPTIONAL
                .iter()
                .copied()
                .filter(|name| named(name))
                .collect(),
            aliases: ALIASES
                .iter()
                .copied()
                .filter(|(_, go)| named(go))
                .collect(),
        };
        self.render(&extras.value(json))
    }
}

/// Docker writes `\t` and `\n` in a format for the characters.
pub(crate) fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// A template's value of a JSON document: a map, in which a missing key is `<no value>`.
pub(crate) fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        serde_json::Value::Array(values) => Value::Array(values.iter().map(from_json).collect()),
        serde_json::Value::Object(entries) => Value::Map(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), from_json(value)))
                .collect(),
        ),
    }
}

/// Names that Docker's own structs have in Go and that its JSON spells otherwise: templates may use either.
const ALIASES: &[(&str, &str)] = &[
    ("Id", "ID"),
    ("ApiVersion", "APIVersion"),
    ("CpuShares", "CPUShares"),
    ("NanoCpus", "NanoCPUs"),
    ("CpuPeriod", "CPUPeriod"),
    ("CpuQuota", "CPUQuota"),
    ("CpuRealtimePeriod", "CPURealtimePeriod"),
    ("CpuRealtimeRuntime", "CPURealtimeRuntime"),
    ("CpuCount", "CPUCount"),
    ("CpuPercent", "CPUPercent"),
    ("CpuCfsPeriod", "CPUCfsPeriod"),
    ("CpuCfsQuota", "CPUCfsQuota"),
    ("Dns", "DNS"),
    ("DnsOptions", "DNSOptions"),
    ("DnsSearch", "DNSSearch"),
    ("HttpProxy", "HTTPProxy"),
    ("HttpsProxy", "HTTPSProxy"),
    ("id", "ID"),
    ("status", "Status"),
    ("from", "From"),
    ("scope", "Scope"),
    ("time", "Time"),
    ("timeNano", "TimeNano"),
];

/// Fields that Docker's JSON leaves out when they are empty, and that templates may ask for all the same.
const OPTIONAL: &[&str] = &[
    "Annotations",
    "ArgsEscaped",
    "CreatedAt",
    "Descriptor",
    "Driver",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Health",
    "Healthcheck",
    "ImageManifestDescriptor",
    "Init",
    "Labels",
    "MacAddress",
    "Mounts",
    "Name",
    "NetworkDisabled",
    "OnBuild",
    "OsVersion",
    "Peers",
    "Runtime",
    "Shell",
    "SizeRootFs",
    "SizeRw",
    "Status",
    "StopSignal",
    "StopTimeout",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Type",
    "UsageData",
    "User",
    "Variant",
    "Volumes",
    "WorkingDir",
];

/// Fields that hold a map of the user's keys and not a struct of Docker's.
const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "AuxiliaryAddresses",
    "Containers",
    "Data",
    "Details",
    "DriverOpts",
    "EndpointsConfig",
    "ExposedPorts",
    "IndexConfigs",
    "Labels",
    "Networks",
    "Options",
    "Ports",
    "PortBindings",
    "Runtimes",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "status",
];

/// What a template asks for beyond what JSON has.
struct Extras {
    optional: Vec<&'static str>,
    aliases: Vec<(&'static str, &'static str)>,
}

impl Extras {
    fn value(&self, json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Array(values) => {
                Value::Array(values.iter().map(|value| self.value(value)).collect())
            }
            serde_json::Value::Object(entries) => self.fields(entries),
            scalar => from_json(scalar),
        }
    }

    fn fields(&self, entries: &serde_json::Map<String, serde_json::Value>) -> Value {
        let mut fields: HashMap<String, Value> = self
            .optional
            .iter()
            .map(|name| ((*name).to_owned(), Value::Nil))
            .collect();
        for (name, value) in entries {
            let value = match (MAPS.contains(&name.as_str()), value) {
                (true, serde_json::Value::Object(entries)) => Value::Map(
                    entries
                        .iter()
                        .map(|(key, value)| (key.clone(), self.value(value)))
                        .collect(),
                ),
                (_, value) => self.value(value),
            };
            fields.insert(name.clone(), value);
        }
        for (wire, go) in &self.aliases {
            if let Some(value) = entries.get(*wire) {
                fields.insert((*go).to_owned(), self.value(value));
            }
        }
        Value::Object(fields)
    }
}

/// Whether a struct has this field only for templates' sake.
fn is_extra(fields: &HashMap<String, Value>, name: &str, value: &Value) -> bool {
    let absent = matches!(value, Value::Nil) && OPTIONAL.contains(&name);
    let alias = || {
        ALIASES
            .iter()
            .any(|(wire, go)| *go == name && fields.contains_key(*wire))
    };
    name == LABELS || absent || alias()
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

const FUNCTIONS: &[(&str, Func)] = &[
    ("json", |args| {
        to_json(first("json", args)?).map(Value::String)
    }),
    ("label", label),
    ("lower", |args| {
        Ok(text("lower", args, 0)?.to_lowercase().into())
    }),
    ("upper", |args| {
        Ok(text("upper", args, 0)?.to_uppercase().into())
    }),
    ("title", |args| Ok(title(&text("title", args, 0)?).into())),
    ("split", |args| {
        let (whole, separator) = (text("split", args, 0)?, text("split", args, 1)?);
        let parts: Vec<Value> = match separator.as_str() {
            "" => whole.chars().map(|c| c.to_string().into()).collect(),
            separator => whole.split(separator).map(Value::from).collect(),
        };
        Ok(Value::Array(parts))
    }),
    ("join", |args| {
        let Value::Array(parts) = first("join", args)? else {
            return Err(FuncError::Generic("join wants a list".to_owned()));
        };
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        Ok(parts.join(&text("join", args, 1)?).into())
    }),
    ("pad", pad),
    ("truncate", |args| {
        let (whole, length) = (text("truncate", args, 0)?, count("truncate", args, 1)?);
        Ok(whole.chars().take(length).collect::<String>().into())
    }),
];

const HEADER_FUNCTIONS: &[(&str, Func)] = &[
    ("json", same),
    ("label", |args| {
        // The title of a label is its name's last part.
        let name = text("label", args, 1)?;
        let last = name.rsplit('.').next().unwrap_or_default();
        Ok(last.replace(['-', '_'], " ").into())
    }),
    ("lower", same),
    ("upper", same),
    ("title", same),
    ("split", same),
    ("join", same),
    ("truncate", same),
    ("pad", pad),
];

fn first<'a>(name: &str, args: &'a [Value]) -> Result<&'a Value, FuncError> {
    args.first()
        .ok_or_else(|| FuncError::AtLeastXArgs(name.to_owned(), 1))
}

fn text(name: &str, args: &[Value], index: usize) -> Result<String, FuncError> {
    match args.get(index) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(FuncError::Generic(format!(
            "argument {} of {name} is not a string",
            index + 1
        ))),
        None => Err(FuncError::AtLeastXArgs(name.to_owned(), index + 1)),
    }
}

fn count(name: &str, args: &[Value], index: usize) -> Result<usize, FuncError> {
    // Wider padding than this is a mistake, not a wish.
    const COUNT_MAX: usize = 10_000;
    let number = args
        .get(index)
        .and_then(|value| value.to_string().parse().ok());
    number.filter(|number| *number <= COUNT_MAX).ok_or_else(|| {
        FuncError::Generic(format!(
            "argument {} of {name} is not a number up to {COUNT_MAX}",
            index + 1
        ))
    })
}

fn same(args: &[Value]) -> Result<Value, FuncError> {
    first("a function", args).cloned()
}

fn pad(args: &[Value]) -> Result<Value, FuncError> {
    let whole = text("pad", args, 0)?;
    if whole.is_empty() {
        return Ok(whole.into());
    }
    let (before, after) = (count("pad", args, 1)?, count("pad", args, 2)?);
    Ok(format!("{}{whole}{}", " ".repeat(before), " ".repeat(after)).into())
}

fn label(args: &[Value]) -> Result<Value, FuncError> {
    let name = text("label", args, 1)?;
    let (Value::Object(fields) | Value::Map(fields)) = first("label", args)? else {
        return Err(FuncError::Generic("only a row has labels".to_owned()));
    };
    match fields.get(LABELS) {
        Some(Value::Map(labels)) => Ok(labels.get(&name).cloned().unwrap_or_else(|| "".into())),
        _ => Err(FuncError::Generic("this row has no labels".to_owned())),
    }
}

/// Upper case where a word begins.
fn title(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .flat_map(|c| {
            let upper = !inside && c.is_lowercase();
            inside = c.is_alphanumeric() || c == '_' || c == '\'';
            let (upper, same) = (upper.then(|| c.to_uppercase()), (!upper).then_some(c));
            upper.into_iter().flatten().chain(same)
        })
        .collect()
}

/// Compact JSON with sorted keys.
fn to_json(value: &Value) -> Result<String, FuncError> {
    fn convert(value: &Value) -> Option<serde_json::Value> {
        Some(match value {
            Value::NoValue | Value::Nil => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::String(text) => text.as_str().into(),
            // A number prints as JSON's grammar has it.
            Value::Number(_) => serde_json::from_str(&value.to_string()).ok()?,
            Value::Array(values) => {
                serde_json::Value::Array(values.iter().map(convert).collect::<Option<_>>()?)
            }
            Value::Object(fields) => fields
                .iter()
                .filter(|(name, value)| !is_extra(fields, name, value))
                .map(|(name, value)| Some((name.clone(), convert(value)?)))
                .collect::<Option<_>>()?,
            Value::Map(entries) => entries
                .iter()
                .map(|(name, value)| Some((name.clone(), convert(value)?)))
                .collect::<Option<_>>()?,
            Value::Function(_) => return None,
        })
    }
    let json = convert(value).ok_or_else(|| FuncError::Generic("not a JSON value".to_owned()))?;
    Ok(json.to_string())
}

#[cfg(test)]
mod tests {
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
