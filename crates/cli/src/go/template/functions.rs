//! Docker's functions of templates.

use super::LABELS;
use super::values::to_json;
use gtmpl_ng::{Func, FuncError, Value};

/// What templates can call.
pub(super) const FUNCTIONS: &[(&str, Func)] = &[
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

/// What stands in for it in templates of column titles.
pub(super) const HEADER_FUNCTIONS: &[(&str, Func)] = &[
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
