//! One record of comma-separated values, as Go's `encoding/csv` reads it: `--mount`, `--gpus`, `--network`.

/// Splits one line into fields. A field in double quotes may hold commas, and doubled quotes.
pub(crate) fn record(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("empty value".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err(format!("a quote inside the unquoted field {field:?}"));
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// The field after its opening quote, and what follows its closing quote.
fn quoted_field(mut rest: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    loop {
        let (before, after) = rest
            .split_once('"')
            .ok_or("a quoted field without its end")?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return Err("text after a quoted field".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_quotes() {
        assert_eq!(record("a=b,c,,d").unwrap(), ["a=b", "c", "", "d"]);
        assert_eq!(record(r#""a,b",c"#).unwrap(), ["a,b", "c"]);
        assert_eq!(record(r#""a ""x"" b""#).unwrap(), [r#"a "x" b"#]);
        assert_eq!(record("a,").unwrap(), ["a", ""]);
        for line in ["", r#"a"b"#, r#""a"#, r#""a"b"#] {
            assert!(record(line).is_err(), "{line}");
        }
    }
}
