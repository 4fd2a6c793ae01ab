//! The objects of one kind in one namespace: by name, and by what others look for them by.

use std::sync::Arc;

use super::slim::Slim;

/// A short form of something to look for. Two things may have the same: whoever finds an object looks at it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(u64);

/// What a namespace holds, in rows: a tree's nodes are half empty where names come in order, and a namespace may have
/// thousands of objects.
#[derive(Clone, Debug)]
pub struct Space<T> {
    /// By name.
    objects: Vec<(Arc<str>, Arc<T>)>,
    /// By tag, then by name.
    tags: Vec<(Tag, Arc<str>)>,
}

impl Tag {
    /// Something that carries this label, or whose selector begins with it.
    pub fn label(name: &str, value: &str) -> Self {
        Self::hash("label", &[name, value])
    }

    /// Something of this Service.
    pub fn service(name: &str) -> Self {
        Self::hash("service", &[name])
    }

    /// Something of this app.
    pub fn app(name: &str) -> Self {
        Self::hash("app", &[name])
    }

    /// FNV-1a, 64 bits; no text contains the byte 0xFF, so it keeps them apart.
    fn hash(kind: &str, parts: &[&str]) -> Self {
        let bytes = std::iter::once(&kind).chain(parts).flat_map(|part| part.bytes().chain([0xFF]));
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }
}

impl<T> Default for Space<T> {
    fn default() -> Self {
        Self { objects: Vec::new(), tags: Vec::new() }
    }
}

impl<T: Slim> Space<T> {
    /// The object of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.entry(name).map(|(_, object)| object)
    }

    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    /// Every object, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<T>)> {
        self.objects.iter().map(|(name, object)| (&**name, object))
    }

    /// Every object, in order of name.
    pub fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.iter().map(|(_, object)| object)
    }

    /// Every name, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.objects.iter().map(|(name, _)| name)
    }

    /// This name, as it is kept.
    pub fn name(&self, name: &str) -> Option<&Arc<str>> {
        self.entry(name).map(|(name, _)| name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Those with this tag, in order of name; perhaps others that look alike.
    pub fn tagged(&self, tag: Tag) -> impl Iterator<Item = (&str, &Arc<T>)> {
        let first = self.tags.partition_point(|(of, _)| *of < tag);
        let tagged = self.tags.iter().skip(first).take_while(move |(of, _)| *of == tag);
        tagged.filter_map(|(_, name)| Some((&**name, self.get(name)?)))
    }

    /// Puts an object in; the one that was there before.
    pub fn insert(&mut self, name: &str, object: Arc<T>) -> Option<Arc<T>> {
        let tags: Vec<_> = object.tags().collect();
        let (name, old) = match self.place(name) {
            Ok(place) => {
                let known = self.objects.get_mut(place)?;
                (Arc::clone(&known.0), Some(std::mem::replace(&mut known.1, object)))
            }
            Err(place) => {
                let name: Arc<str> = Arc::from(name);
                put(&mut self.objects, place, (Arc::clone(&name), object));
                (name, None)
            }
        };
        for tag in old.iter().flat_map(|old| old.tags()).filter(|tag| !tags.contains(tag)) {
            self.untag(tag, &name);
        }
        for tag in tags {
            if let Err(place) = self.tag_place(tag, &name) {
                put(&mut self.tags, place, (tag, Arc::clone(&name)));
            }
        }
        old
    }

    /// Takes an object out.
    pub fn remove(&mut self, name: &str) -> Option<Arc<T>> {
        let (name, old) = self.place(name).ok().map(|place| self.objects.remove(place))?;
        for tag in old.tags() {
            self.untag(tag, &name);
        }
        Some(old)
    }

    fn entry(&self, name: &str) -> Option<&(Arc<str>, Arc<T>)> {
        self.objects.get(self.place(name).ok()?)
    }

    /// Where it is, or would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.objects.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    fn tag_place(&self, tag: Tag, name: &str) -> Result<usize, usize> {
        self.tags.binary_search_by(|(of, known)| (*of, &**known).cmp(&(tag, name)))
    }

    fn untag(&mut self, tag: Tag, name: &str) {
        if let Ok(place) = self.tag_place(tag, name) {
            self.tags.remove(place);
        }
    }
}

/// Grows by an eighth, where a vector would double.
fn put<E>(row: &mut Vec<E>, place: usize, element: E) {
    if row.len() == row.capacity() {
        row.reserve_exact(row.len() / 8 + 1);
    }
    row.insert(place, element);
}

impl<T: Slim> FromIterator<(String, T)> for Space<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(objects: I) -> Self {
        let mut space = Self::default();
        for (name, object) in objects {
            space.insert(&name, Arc::new(object));
        }
        space
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::slim::SlimPod;

    fn pod(labels: &Value) -> Arc<SlimPod> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap();
        Arc::new(SlimPod::of(pod))
    }

    fn names(space: &Space<SlimPod>, name: &str, value: &str) -> Vec<String> {
        space.tagged(Tag::label(name, value)).map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn an_object_is_found_by_what_it_carries_now_and_not_by_what_it_carried() {
        let mut space = Space::default();
        space.insert("b", pod(&json!({"app": "web"})));
        space.insert("a", pod(&json!({"app": "web", "tier": "front"})));
        space.insert("c", pod(&json!({"app": "api"})));
        assert_eq!(names(&space, "app", "web"), ["a", "b"]);
        space.insert("b", pod(&json!({"app": "api"})));
        assert_eq!(
            (names(&space, "app", "web"), names(&space, "app", "api")),
            (vec!["a".into()], vec!["b".into(), "c".into()])
        );
        assert!(space.remove("a").is_some() && space.remove("a").is_none());
        assert!(names(&space, "app", "web").is_empty() && names(&space, "tier", "front").is_empty());
        assert_eq!((space.len(), space.contains("c"), space.is_empty()), (2, true, false));
    }
}
