//! Pages of names: of a list in no order, the first so many after a name, in memory for one page alone.

use std::collections::BTreeSet;

/// A page of names in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) names: Vec<String>,
    /// Whether more come after them.
    pub(crate) more: bool,
}

impl Page {
    /// Of names in any order, the first so many after one.
    pub(crate) fn of(names: Vec<String>, after: &str, names_max: usize) -> Self {
        let mut pager = Pager::new(after, names_max);
        names.into_iter().for_each(|name| pager.add(name));
        pager.page()
    }
}

/// Gathers the first so many names after one, whatever the order they come in.
pub(super) struct Pager<'a> {
    after: &'a str,
    names_max: usize,
    first: BTreeSet<String>,
}

impl<'a> Pager<'a> {
    pub(super) fn new(after: &'a str, names_max: usize) -> Self {
        Self {
            after,
            names_max,
            first: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, name: String) {
        if name.as_str() <= self.after {
            return;
        }
        self.first.insert(name);
        // One more than wanted tells that there are more.
        if self.first.len() > self.names_max.saturating_add(1) {
            self.first.pop_last();
        }
    }

    pub(super) fn page(mut self) -> Page {
        let more = self.first.len() > self.names_max;
        if more {
            self.first.pop_last();
        }
        Page {
            names: self.first.into_iter().collect(),
            more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_order_and_tell_of_more() {
        let mut pager = Pager::new("b", 2);
        for name in ["e", "a", "d", "b", "c"] {
            pager.add(name.to_owned());
        }
        let page = pager.page();
        assert_eq!(
            (page.names.clone(), page.more),
            (vec!["c".to_owned(), "d".to_owned()], true)
        );
        let mut pager = Pager::new("", usize::MAX);
        pager.add("x".to_owned());
        assert_eq!(pager.page().names, ["x"]);
    }
}
