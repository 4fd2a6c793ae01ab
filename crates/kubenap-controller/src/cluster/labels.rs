//! Labels in one piece of memory each: thousands of objects carry some, and a map for each would weigh more than they.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use kubenap_core::policy::Texts;

/// Names and values, in order of name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<str>);

/// Ends each name and each value; the API takes it in neither.
const END: char = '\0';

impl Labels {
    /// Packs them.
    pub fn of(texts: &Texts) -> Self {
        let clean = texts.iter().filter(|(name, value)| !name.contains(END) && !value.contains(END));
        let mut packed =
            String::with_capacity(texts.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
        for part in clean.flat_map(|(name, value)| [name, value]) {
            packed.push_str(part);
            packed.push(END);
        }
        Self(packed.into())
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator(END);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of `others` are among them.
    pub fn contain(&self, others: &Self) -> bool {
        others.iter().all(|(name, value)| self.get(name) == Some(value))
    }
}

/// What many objects have alike is kept once. Bounded: what does not fit in is kept by each.
#[derive(Debug)]
pub struct Alike<T>(Mutex<Vec<Weak<T>>>);

/// How many different ones are looked through.
const KINDS: usize = 32;

impl<T: PartialEq> Alike<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The same, shared with whoever has it too.
    pub fn share(&self, new: T) -> Arc<T> {
        let mut alike = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = alike.iter().filter_map(Weak::upgrade).find(|known| **known == new) {
            return known;
        }
        let new = Arc::new(new);
        if alike.len() >= KINDS {
            alike.retain(|known| known.strong_count() > 1);
            // Whatever is used by one alone has no place here.
            alike.truncate(KINDS / 2);
        }
        alike.push(Arc::downgrade(&new));
        new
    }
}

impl<T: PartialEq> Default for Alike<T> {
    fn default() -> Self {
        Self::new()
    }
}

static ALIKE: Alike<Texts> = Alike::new();

/// The same texts, shared with whoever has them too.
pub fn shared(texts: Texts) -> Arc<Texts> {
    ALIKE.share(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn packed_labels_are_found_by_name_also_empty_ones() {
        let labels = Labels::of(&texts(&[("b", ""), ("a", "1"), ("app.kubernetes.io/name", "web")]));
        assert_eq!(
            labels.iter().collect::<Vec<_>>(),
            [("a", "1"), ("app.kubernetes.io/name", "web"), ("b", "")]
        );
        assert_eq!((labels.get("b"), labels.get("c")), (Some(""), None));
        assert!(labels.contain(&Labels::of(&texts(&[("b", "")]))));
        assert!(!labels.contain(&Labels::of(&texts(&[("b", "1")]))));
        assert!(Labels::default().is_empty() && labels.contain(&Labels::default()));
    }

    #[test]
    fn texts_that_are_alike_are_one() {
        let one = shared(texts(&[("kubenap/enabled", "true"), ("only-in", "this-test")]));
        let two = shared(texts(&[("kubenap/enabled", "true"), ("only-in", "this-test")]));
        assert!(Arc::ptr_eq(&one, &two));
        let many: Vec<_> = (0..100).map(|n| shared(texts(&[("n", &n.to_string())]))).collect();
        assert_eq!(many[99]["n"], "99");
    }
}
