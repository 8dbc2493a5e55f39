//! Documents: encoding, sets, windows, and deltas that rebuild them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A value as bytes.
#[derive(Clone, Debug, PartialEq)]
struct Made(Vec<u8>);

impl Made {
    fn value(&self) -> Value<'_> {
        Value::of(&self.0)
    }
}

fn int(number: i64) -> Made {
    let mut bytes = Vec::new();
    msgpack::write_integer(number, &mut bytes);
    Made(bytes)
}

fn float(number: f64) -> Made {
    let mut bytes = Vec::new();
    msgpack::write_float(number, &mut bytes);
    Made(bytes)
}

fn text(text: &str) -> Made {
    let mut bytes = Vec::new();
    msgpack::write_text(text.as_bytes(), &mut bytes);
    Made(bytes)
}

fn array(items: &[Made]) -> Made {
    let mut bytes = Vec::new();
    msgpack::write_array_header(items.len(), &mut bytes);
    items.iter().for_each(|item| bytes.extend_from_slice(&item.0));
    Made(bytes)
}

fn object(fields: &Fields) -> Made {
    let mut bytes = Vec::new();
    msgpack::write_object_header(fields.len(), &mut bytes);
    bytes.extend_from_slice(fields.bytes());
    Made(bytes)
}

fn set(fields: &mut Fields, name: &str, value: &Made) -> bool {
    set_near(fields, name, value, &mut 0)
}

fn set_near(fields: &mut Fields, name: &str, value: &Made, near: &mut usize) -> bool {
    let name = FieldName::from(name);
    let place = fields.place(&name, near);
    fields.set(&name, place, value.value())
}

fn any_value() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![
        Just(Made(vec![msgpack::NULL])),
        any::<bool>().prop_map(|value| Made(vec![0xc2 + u8::from(value)])),
        any::<i64>().prop_map(int),
        (-1000_i64..70_000).prop_map(int),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(float),
        "\\PC{0,40}".prop_map(|string| text(&string)),
        "[a-z\"\\\\\n\u{1}]{0,300}".prop_map(|string| text(&string)),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![vec(inner.clone(), 0..20).prop_map(|items| array(&items)), fields_of(inner).prop_map(|fields| object(&fields))]
    })
}

fn fields_of(values: impl Strategy<Value = Made>) -> impl Strategy<Value = Fields> {
    vec(("[a-z]{1,30}", values), 0..20).prop_map(|members| {
        let mut fields = Fields::default();
        for (name, value) in &members {
            set(&mut fields, name, value);
        }
        fields
    })
}

fn any_document() -> impl Strategy<Value = Document> {
    prop_oneof![
        (fields_of(any_value()), any::<Option<i64>>()).prop_map(|(fields, newer_by)| Document::Entity { fields, newer_by }),
        (vec(any::<u64>(), 0..200), 1_usize..100).prop_map(|(ids, len_max)| {
            let mut window = LastWindow::default();
            ids.into_iter().for_each(|id| window.push(id, len_max));
            Document::Last(window)
        }),
        vec((any::<u64>(), any::<i64>()), 0..100).prop_map(|entries| {
            let mut window = WithinWindow::default();
            entries.into_iter().for_each(|(id, now)| window.push(id, now, i64::MIN, 50));
            Document::Within(window)
        }),
    ]
}

fn encoded(document: &Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    document.encode(&mut bytes);
    bytes
}

/// What another MessagePack reader makes of a value.
fn foreign(bytes: &[u8]) -> serde_json::Value {
    rmp_serde::from_slice(bytes).unwrap()
}

/// What the journal holds of a change, applied; `None` when it holds the whole value.
fn patched(old: &Document, new: &Document) -> Option<(usize, Vec<u8>)> {
    let (mut patch, mut scratch, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = PatchWriter::new(&mut patch, &mut scratch);
    if !new.encode_patch(old, &mut writer) {
        return None;
    }
    writer.finish();
    forebay_engine::patch::apply(&encoded(old), &patch, &mut bytes).unwrap();
    Some((patch.len(), bytes))
}

/// A document and one that shares fields, elements or ids with it.
fn related_documents() -> impl Strategy<Value = (Document, Document)> {
    let kept = vec((any::<prop::sample::Index>(), any_value()), 0..6);
    let fields = (fields_of(any_value()), kept, vec(any::<prop::sample::Index>(), 0..3), any::<Option<i64>>(), any::<Option<i64>>());
    prop_oneof![
        (any_document(), any_document()),
        fields.prop_map(|(old, changes, removals, old_time, new_time)| {
            let mut new = old.clone();
            let name_of = |(name, _): (Value<'_>, Value<'_>)| String::from_utf8(name.text().to_vec()).unwrap();
            let names: Vec<String> = old.iter().map(name_of).collect();
            for (index, value) in changes {
                let name = names.get(index.index(names.len() + 1)).map_or("a-new-one", String::as_str);
                let value = match new.get(&FieldName::from(name)).map(Value::shape) {
                    Some(Shape::Array(there)) => {
                        let longer: Vec<Made> = there.map(|item| Made(item.bytes().to_vec())).chain([value]).collect();
                        array(&longer)
                    }
                    _ => value,
                };
                set(&mut new, name, &value);
            }
            for index in removals.iter().filter(|_| !names.is_empty()) {
                new.remove(&FieldName::from(names[index.index(names.len())].as_str()), &mut 0);
            }
            (Document::Entity { fields: old, newer_by: old_time }, Document::Entity { fields: new, newer_by: new_time })
        }),
        (vec(any::<u64>(), 0..100), vec(any::<u64>(), 0..100), 1_usize..70).prop_map(|(before, later, len_max)| {
            let mut window = LastWindow::default();
            before.into_iter().for_each(|id| window.push(id, len_max));
            let old = Document::Last(window.clone());
            later.into_iter().for_each(|id| window.push(id, len_max));
            (old, Document::Last(window))
        }),
    ]
}

#[test]
fn a_patch_of_a_window_or_a_counter_is_a_few_bytes() {
    let mut window = LastWindow::default();
    (0..100).for_each(|id| window.push(id, 64));
    let old = Document::Last(window.clone());
    window.push(4711, 64);
    let new = Document::Last(window);
    let (len, bytes) = patched(&old, &new).unwrap();
    assert_eq!(bytes, encoded(&new));
    assert!(len <= 16, "{len}");
    let entity = |count: i64| {
        let mut fields = Fields::default();
        set(&mut fields, "a_long_name_of_a_counter", &int(count));
        set(&mut fields, "another", &text("a text that stays as it is"));
        Document::Entity { fields, newer_by: None }
    };
    let (len, bytes) = patched(&entity(7), &entity(8)).unwrap();
    assert_eq!(bytes, encoded(&entity(8)));
    assert!(len <= 6, "{len}");
}

proptest! {
    #[test]
    fn a_patch_makes_the_very_bytes_of_the_new_document(pair in related_documents()) {
        let (old, new) = pair;
        if let Some((_, bytes)) = patched(&old, &new) {
            prop_assert_eq!(bytes, encoded(&new));
        } else {
            let both_entities = old.fields().is_some() && new.fields().is_some();
            prop_assert!(!both_entities, "two entities always have a patch");
        }
    }

    #[test]
    fn a_document_comes_back_from_its_bytes_as_it_was(document in any_document()) {
        let back = Document::decode(&encoded(&document)).unwrap();
        prop_assert_eq!(&back, &document);
        // The order of fields counts too, although comparing does not look at it.
        prop_assert_eq!(back.to_json(), document.to_json());
    }

    #[test]
    fn an_entity_reads_the_same_in_any_messagepack_reader_and_as_json(fields in fields_of(any_value())) {
        let document = Document::Entity { fields, newer_by: None };
        let bytes = encoded(&document);
        prop_assert_eq!(bytes[0], 1);
        // Not serde_json's reader: it may read a float one bit off.
        let as_json: serde_json::Value = sonic_rs::from_str(&document.to_json()).unwrap();
        prop_assert_eq!(foreign(&bytes[1..]), as_json);
    }

    #[test]
    fn bytes_that_were_cut_or_changed_never_panic_and_cut_ones_are_refused(document in any_document(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encoded(&document);
        let at = at.index(bytes.len());
        prop_assert!(Document::decode(&bytes[..at]).is_err());
        bytes[at] = to;
        let _ = Document::decode(&bytes);
    }

    #[test]
    fn fields_are_what_a_map_in_order_would_be(changes in vec(("[a-c]{1,2}|[a-z]{30,40}", prop::option::of(any_value())), 0..40)) {
        let (mut fields, mut model, mut near) = (Fields::default(), Vec::<(String, Made)>::new(), 0);
        for (name, value) in changes {
            let at = model.iter().position(|(there, _)| *there == name);
            match (value, at) {
                (Some(value), Some(at)) => {
                    prop_assert_eq!(set_near(&mut fields, &name, &value, &mut near), model[at].1.value() != value.value());
                    // What is equal stays as it was: 0.0 for -0.0, an object's order.
                    if model[at].1.value() != value.value() {
                        model[at].1 = value;
                    }
                }
                (Some(value), None) => {
                    prop_assert!(set_near(&mut fields, &name, &value, &mut near));
                    model.push((name, value));
                }
                (None, at) => {
                    prop_assert_eq!(fields.remove(&FieldName::from(name.as_str()), &mut near), at.is_some());
                    at.map(|at| model.remove(at));
                }
            }
            let found: Vec<_> = fields.iter().map(|(name, value)| (name.text().to_vec(), value.bytes().to_vec())).collect();
            let expected: Vec<_> = model.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.0.clone())).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(fields.len(), model.len());
            for (name, value) in &model {
                prop_assert_eq!(fields.get(&FieldName::from(name.as_str())), Some(value.value()));
            }
        }
    }

    #[test]
    fn the_last_ids_are_remembered_and_no_others(ids in vec(0_u64..50, 1..300), len_max in 1_usize..40) {
        let mut window = LastWindow::default();
        let mut all = Vec::new();
        for id in ids {
            let expected = all.iter().rev().take(len_max).any(|there| *there == id);
            prop_assert_eq!(window.contains(id), expected);
            window.push(id, len_max);
            all.push(id);
        }
        let newest: Vec<u64> = all[all.len().saturating_sub(len_max)..].to_vec();
        prop_assert_eq!(window.iter().collect::<Vec<_>>(), newest);
    }
}

#[test]
fn equal_values_are_of_one_type_and_objects_have_no_order() {
    let fields = |names: &[&str]| {
        let mut fields = Fields::default();
        for name in names {
            set(&mut fields, name, &int(i64::try_from(name.len()).unwrap()));
        }
        object(&fields)
    };
    let equal = [(float(0.0), float(-0.0)), (fields(&["a", "bb"]), fields(&["bb", "a"])), (array(&[float(0.0)]), array(&[float(-0.0)]))];
    let unequal = [
        (int(1), float(1.0)),
        (int(1), text("1")),
        (int(0), Made(vec![msgpack::NULL])),
        (fields(&["a", "bb"]), fields(&["a"])),
        (fields(&["a", "bb"]), fields(&["a", "cc"])),
        (array(&[int(1), int(2)]), array(&[int(2), int(1)])),
        (array(&[]), fields(&[])),
    ];
    for (left, right) in &equal {
        assert_eq!(left.value(), right.value());
    }
    for (left, right) in &unequal {
        assert_ne!(left.value(), right.value());
    }
}

#[test]
fn a_window_keeps_the_newest_when_its_length_changes() {
    let mut window = LastWindow::default();
    (1..=5).for_each(|id| window.push(id, 4));
    window.push(6, 2);
    assert_eq!(window.iter().collect::<Vec<_>>(), [5, 6]);
    (7..=9).for_each(|id| window.push(id, 4));
    assert_eq!(window.iter().collect::<Vec<_>>(), [6, 7, 8, 9]);
}

#[test]
fn the_bytes_of_format_1_stay_what_they_are() {
    let mut fields = Fields::default();
    set(&mut fields, "n", &int(-300));
    set(&mut fields, "set", &array(&[text("IAH"), float(1.5), Made(vec![0xc3]), Made(vec![msgpack::NULL])]));
    let entity = Document::Entity { fields, newer_by: Some(7) };
    let golden = b"\x01\x92\x07\x82\xa1n\xd1\xfe\xd4\xa3set\x94\xa3IAH\xcb\x3f\xf8\0\0\0\0\0\0\xc3\xc0";
    assert_eq!(encoded(&entity), golden);
    assert_eq!(Document::decode(golden), Ok(entity));
    let mut window = LastWindow::default();
    window.push(0x0102_0304_0506_0708, 64);
    let golden = b"\x01\xc9\0\0\0\x08\x01\x01\x02\x03\x04\x05\x06\x07\x08";
    assert_eq!(encoded(&Document::Last(window.clone())), golden);
    assert_eq!(Document::decode(golden), Ok(Document::Last(window)));
    let mut window = WithinWindow::default();
    window.push(1, 2, 0, 64);
    let golden = b"\x01\xc9\0\0\0\x10\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02";
    assert_eq!(encoded(&Document::Within(window.clone())), golden);
    assert_eq!(Document::decode(golden), Ok(Document::Within(window)));
}

#[test]
fn foreign_bytes_are_refused_with_their_fault() {
    let check = |bytes: &[u8], expected: &str| {
        let error = Document::decode(bytes).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check(b"", "empty");
    check(b"\x02\x80", "format 2 is unknown to this version, which reads format 1");
    check(b"\x01\x05", "an entity must be a map, not an integer");
    check(b"\x01\x80\x80", "1 bytes follow");
    check(b"\x01\x81\x05\x05", "name must be a string");
    check(b"\x01\x81\xa1\xff\x05", "not UTF-8");
    check(b"\x01\xc9\0\0\0\x03\x01abc", "extension");
    check(&[&[1_u8][..], &[0x81, 0xa1, b'a'], &[0x91; 400], &[0xc0]].concat(), "nested deeper");
}

#[test]
fn the_weight_grows_with_what_a_document_holds() {
    let weight = |value: &Made| {
        let mut fields = Fields::default();
        set(&mut fields, "f", value);
        Document::Entity { fields, newer_by: None }.weight()
    };
    assert!(weight(&text(&"x".repeat(1000))) >= weight(&int(1)) + 990);
    assert!(weight(&array(&vec![int(1000); 500])) >= weight(&int(1)) + 1490);
}
