//! JSON patches (RFC 6902): a list of operations, each of which must succeed.
use serde::Deserialize;
use serde_json::Value;

/// One operation.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

impl Operation {
    /// Changes the document, or says why it cannot.
    pub(super) fn carry_out(self, document: &mut Value) -> Result<(), String> {
        match self {
            Self::Add { path, value } => add(document, &path, value),
            Self::Remove { path } => remove(document, &path).map(drop),
            Self::Replace { path, value } => {
                let place = document.pointer_mut(&path).ok_or_else(|| missing("replace", &path))?;
                *place = value;
                Ok(())
            }
            Self::Move { from, path } => {
                let value = remove(document, &from)?;
                add(document, &path, value)
            }
            Self::Copy { from, path } => {
                let value = document.pointer(&from).cloned().ok_or_else(|| missing("copy", &from))?;
                add(document, &path, value)
            }
            Self::Test { path, value } => match document.pointer(&path) {
                Some(found) if *found == value => Ok(()),
                // The real API server takes a missing field for null.
                None if value.is_null() => Ok(()),
                _ => Err(format!("testing path {path}: test failed")),
            },
        }
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let Some((parent, last)) = path.rsplit_once('/') else {
        *document = value;
        return Ok(());
    };
    match document.pointer_mut(parent) {
        Some(Value::Object(fields)) => {
            fields.insert(unescape(last), value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let place = if last == "-" { Some(items.len()) } else { last.parse().ok() };
            let place = place.filter(|place| *place <= items.len()).ok_or_else(|| missing("add", path))?;
            items.insert(place, value);
            Ok(())
        }
        _ => Err(missing("add", path)),
    }
}

fn remove(document: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| missing("remove", path))?;
    match document.pointer_mut(parent) {
        Some(Value::Object(fields)) => fields.remove(&unescape(last)),
        Some(Value::Array(items)) => {
            last.parse().ok().filter(|place| *place < items.len()).map(|place: usize| items.remove(place))
        }
        _ => None,
    }
    .ok_or_else(|| missing("remove", path))
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn missing(deed: &str, path: &str) -> String {
    format!("{deed} operation does not apply: doc is missing path: {path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(patch: Value, expected: Result<Value, &str>) {
        let mut document = json!({ "a/b": { "list": [1, 2] }, "x": 1 });
        let operations: Vec<Operation> = serde_json::from_value(patch).unwrap();
        let outcome = operations.into_iter().try_for_each(|operation| operation.carry_out(&mut document));
        assert_eq!(outcome.map(|()| document), expected.map_err(str::to_owned));
    }

    #[test]
    fn operations_do_what_the_rfc_says() {
        check(
            json!([
                { "op": "test", "path": "/x", "value": 1 },
                { "op": "add", "path": "/a~1b/list/1", "value": 9 },
                { "op": "move", "from": "/x", "path": "/y" },
                { "op": "copy", "from": "/y", "path": "/a~1b/list/-" },
                { "op": "remove", "path": "/a~1b/list/0" }
            ]),
            Ok(json!({ "a/b": { "list": [9, 2, 1] }, "y": 1 })),
        );
    }

    #[test]
    fn a_failed_test_says_so() {
        check(json!([{ "op": "test", "path": "/x", "value": 2 }]), Err("testing path /x: test failed"));
        check(
            json!([{ "op": "remove", "path": "/z" }]),
            Err("remove operation does not apply: doc is missing path: /z"),
        );
    }
}
