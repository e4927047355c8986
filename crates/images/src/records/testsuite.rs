//! What every implementation of [`Records`] must do. Enabled by the feature `testsuite`, for the tests of implementations.

use super::{CacheRecord, ImageRecord, LayerRecord, Records, ReferenceRecord, Update};
use oci::{Digest, Reference};

/// Checks an implementation; `make` returns it empty, each time anew. Panics where it does not do what it must.
pub fn run(make: &dyn Fn() -> Box<dyn Records>) {
    empty_records_have_nothing(&*make());
    what_is_put_is_found(&*make());
    a_later_put_replaces(&*make());
    results_of_builds_are_kept(&*make());
    a_reference_moves(&*make());
    removing_an_image_removes_its_references(&*make());
    a_name_may_mean_several_images(&*make());
    removing_what_is_absent_is_no_error(&*make());
    updates_apply_in_order(&*make());
    threads_may_call_at_once(&*make());
}

const PROMISE: &str = "the records must not fail";

fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

fn image(name: &str) -> ImageRecord {
    let layers = vec![digest("lower"), digest("upper"), digest("lower")];
    ImageRecord {
        id: digest(name),
        manifest: digest("manifest"),
        layers,
        added_ns: -7,
    }
}

fn layer(name: &str, size: u64) -> LayerRecord {
    LayerRecord {
        diff_id: digest(name),
        size,
        tar_size: 7,
    }
}

fn reference(text: &str) -> Reference {
    text.parse().expect("the suite's references are valid")
}

fn set(text: &str, image: &str) -> Update {
    Update::SetReference(ReferenceRecord {
        reference: reference(text),
        image: digest(image),
        others: Vec::new(),
    })
}

/// The image that a name means where no platform is asked for.
fn meant(records: &dyn Records, text: &str) -> Option<Digest> {
    let record = records.reference(&reference(text)).expect(PROMISE);
    record.map(|record| record.image)
}

fn empty_records_have_nothing(records: &dyn Records) {
    assert_eq!(records.images().expect(PROMISE), []);
    assert_eq!(records.layers().expect(PROMISE), []);
    assert_eq!(records.references().expect(PROMISE), []);
    assert_eq!(records.image(&digest("a")).expect(PROMISE), None);
    assert_eq!(meant(records, "a:1"), None);
}

fn what_is_put_is_found(records: &dyn Records) {
    let by_digest = format!("z@{}", digest("manifest"));
    // The largest size that SQL's integers hold.
    let large = layer("large", i64::MAX.unsigned_abs());
    let updates = [
        Update::PutLayer(large.clone()),
        Update::PutImage(image("a")),
        set("z:1", "a"),
        set(&by_digest, "a"),
        set("b:1", "a"),
    ];
    records.update(&updates).expect(PROMISE);
    assert_eq!(
        records.image(&digest("a")).expect(PROMISE),
        Some(image("a"))
    );
    assert_eq!(records.images().expect(PROMISE), [image("a")]);
    assert_eq!(records.layers().expect(PROMISE), [large]);
    assert_eq!(meant(records, "z:1"), Some(digest("a")));
    assert_eq!(meant(records, &by_digest), Some(digest("a")));
    assert_eq!(meant(records, "z:2"), None);
    assert_eq!(records.references().expect(PROMISE).len(), 3);
}

fn a_later_put_replaces(records: &dyn Records) {
    let changed = ImageRecord {
        added_ns: 8,
        layers: Vec::new(),
        ..image("a")
    };
    let updates = [
        Update::PutImage(image("a")),
        Update::PutImage(changed.clone()),
        Update::PutLayer(layer("l", 1)),
        Update::PutLayer(layer("l", 2)),
    ];
    records.update(&updates).expect(PROMISE);
    assert_eq!(records.images().expect(PROMISE), [changed]);
    assert_eq!(records.layers().expect(PROMISE), [layer("l", 2)]);
}

fn results_of_builds_are_kept(records: &dyn Records) {
    assert_eq!(records.caches().expect(PROMISE), []);
    let result = |layer: &str| CacheRecord {
        key: digest("key"),
        layers: vec![digest(layer)],
        document: serde_json::json!({"text": "RUN x", "uses": [1, 2]}),
    };
    let put = |layer| Update::PutCache(result(layer));
    records.update(&[put("a"), put("b")]).expect(PROMISE);
    assert_eq!(
        records.cache(&digest("key")).expect(PROMISE),
        Some(result("b"))
    );
    assert_eq!(records.caches().expect(PROMISE), [result("b")]);
    let remove = Update::RemoveCache(digest("key"));
    records.update(&[remove.clone(), remove]).expect(PROMISE);
    assert_eq!(records.cache(&digest("key")).expect(PROMISE), None);
}

fn a_reference_moves(records: &dyn Records) {
    let updates = [
        Update::PutImage(image("a")),
        Update::PutImage(image("b")),
        set("n:1", "a"),
    ];
    records.update(&updates).expect(PROMISE);
    records.update(&[set("n:1", "b")]).expect(PROMISE);
    assert_eq!(meant(records, "n:1"), Some(digest("b")));
    assert_eq!(records.references().expect(PROMISE).len(), 1);
    assert_eq!(records.images().expect(PROMISE).len(), 2);
}

fn removing_an_image_removes_its_references(records: &dyn Records) {
    let updates = [
        Update::PutImage(image("a")),
        Update::PutImage(image("b")),
        set("n:1", "a"),
        set("n:2", "b"),
    ];
    records.update(&updates).expect(PROMISE);
    records
        .update(&[Update::RemoveImage(digest("a"))])
        .expect(PROMISE);
    assert_eq!(records.images().expect(PROMISE), [image("b")]);
    assert_eq!(meant(records, "n:1"), None);
    assert_eq!(meant(records, "n:2"), Some(digest("b")));
}

fn a_name_may_mean_several_images(records: &dyn Records) {
    let several = ReferenceRecord {
        reference: reference("n:1"),
        image: digest("a"),
        others: vec![digest("b"), digest("c")],
    };
    let images = ["a", "b", "c"].map(|name| Update::PutImage(image(name)));
    records.update(&images).expect(PROMISE);
    let updates = [Update::SetReference(several.clone()), set("n:2", "b")];
    records.update(&updates).expect(PROMISE);
    let found = || records.reference(&reference("n:1")).expect(PROMISE);
    assert_eq!(found(), Some(several));
    let remove = |name| Update::RemoveImage(digest(name));
    records.update(&[remove("b")]).expect(PROMISE);
    let left = found().map(|record| record.images().collect::<Vec<_>>());
    assert_eq!(left, Some(vec![digest("a"), digest("c")]));
    assert_eq!(meant(records, "n:2"), None);
    // A name that is given in the same transaction counts as it is then.
    records
        .update(&[set("n:1", "c"), remove("a")])
        .expect(PROMISE);
    assert_eq!(meant(records, "n:1"), Some(digest("c")));
    records.update(&[remove("c")]).expect(PROMISE);
    assert_eq!(found(), None);
}

fn removing_what_is_absent_is_no_error(records: &dyn Records) {
    let updates = [
        Update::RemoveImage(digest("a")),
        Update::RemoveLayer(digest("l")),
        Update::RemoveReference(reference("n:1")),
    ];
    records.update(&updates).expect(PROMISE);
}

fn updates_apply_in_order(records: &dyn Records) {
    let updates = [
        Update::PutLayer(layer("l", 1)),
        Update::RemoveLayer(digest("l")),
        Update::PutImage(image("a")),
        Update::RemoveImage(digest("a")),
        Update::PutImage(image("a")),
        set("n:1", "a"),
        Update::RemoveReference(reference("n:1")),
    ];
    records.update(&updates).expect(PROMISE);
    assert_eq!(records.layers().expect(PROMISE), []);
    assert_eq!(records.images().expect(PROMISE), [image("a")]);
    assert_eq!(records.references().expect(PROMISE), []);
}

fn threads_may_call_at_once(records: &dyn Records) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..8 {
                    let name = format!("{thread}.{round}");
                    let updates = [
                        Update::PutImage(image(&name)),
                        set(&format!("n:{name}"), &name),
                    ];
                    records.update(&updates).expect(PROMISE);
                    assert_eq!(
                        records.image(&digest(&name)).expect(PROMISE),
                        Some(image(&name))
                    );
                }
            });
        }
    });
    assert_eq!(records.images().expect(PROMISE).len(), 32);
    assert_eq!(records.references().expect(PROMISE).len(), 32);
}
