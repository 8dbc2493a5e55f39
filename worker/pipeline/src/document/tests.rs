//! Documents: encoding, sets, windows, and deltas that rebuild them.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1000_i64..70_000).prop_map(Value::Int),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Float),
        "\\PC{0,40}".prop_map(|text| Value::from(text.as_str())),
        "[a-z\"\\\\\n\u{1}]{0,300}".prop_map(|text| Value::from(text.as_str())),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(|items| Value::Array(Arc::new(Array::from(items)))),
            fields_of(inner).prop_map(|fields| Value::Object(Arc::new(fields))),
        ]
    })
}

fn fields_of(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Fields> {
    vec(("[a-z]{1,30}", values), 0..20).prop_map(|members| {
        let mut fields = Fields::default();
        members.into_iter().for_each(|(name, value)| fields.insert(name.as_str(), value));
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
            let names: Vec<String> = old.iter().map(|(name, _)| name.as_str().to_owned()).collect();
            for (index, value) in changes {
                let name = names.get(index.index(names.len() + 1)).map_or("a-new-one", String::as_str);
                match (new.get_mut(name), value) {
                    (Some(Value::Array(array)), value) => Arc::make_mut(array).push(value),
                    (_, value) => new.insert(name, value),
                }
            }
            for index in removals.iter().filter(|_| !names.is_empty()) {
                new.remove(names[index.index(names.len())].as_str());
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
        fields.insert("a_long_name_of_a_counter", Value::Int(count));
        fields.insert("another", Value::from("a text that stays as it is"));
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
    fn a_set_finds_its_members_whatever_its_size(values in vec(any_value(), 0..60), absent in any_value()) {
        let mut set = Array::default();
        let mut json = Vec::new();
        set.write_json(&mut json);
        for value in &values {
            prop_assert_eq!(set.contains(value), set.items().contains(value));
            if !set.contains(value) {
                set.push(value.clone());
            }
            // Asked for each time, so that what is kept of it must be kept right.
            json.clear();
            set.write_json(&mut json);
        }
        prop_assert_eq!(set.contains(&absent), set.items().contains(&absent));
        prop_assert_eq!(&json, &plain_json(&set));
        for value in &values {
            let was_there = set.items().contains(value);
            prop_assert_eq!(set.remove(value), was_there);
            prop_assert!(!set.contains(value));
        }
        prop_assert!(set.items().is_empty());
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

fn plain_json(array: &Array) -> Vec<u8> {
    let mut bytes = Vec::new();
    Array::from(array.items().to_vec()).write_json(&mut bytes);
    bytes
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
    fields.insert("n", Value::Int(-300));
    fields.insert("set", Value::Array(Arc::new(Array::from(vec![Value::from("IAH"), Value::Float(1.5), Value::Bool(true), Value::Null]))));
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
fn a_clone_shares_its_arrays_and_long_strings() {
    let long = "x".repeat(1000);
    let mut fields = Fields::default();
    fields.insert("long", Value::from(long.as_str()));
    fields.insert("set", Value::Array(Arc::new(Array::from(vec![Value::Int(1); 100]))));
    let document = Document::Entity { fields, newer_by: None };
    let mut copy = document.clone();
    let (Some(Value::Array(left)), Some(Value::Array(right))) = (document.fields().unwrap().get("set"), copy.fields().unwrap().get("set"))
    else {
        panic!("both hold an array")
    };
    assert!(Arc::ptr_eq(left, right));
    // And yet a change to one is not seen in the other.
    let Document::Entity { fields, .. } = &mut copy else { panic!("it is an entity") };
    let Some(Value::Array(array)) = fields.get_mut("set") else { panic!("it is an array") };
    Arc::make_mut(array).push(Value::Int(2));
    assert_ne!(copy, document);
}

#[test]
fn the_weight_grows_with_what_a_document_holds() {
    let weight = |value: Value| {
        let mut fields = Fields::default();
        fields.insert("f", value);
        Document::Entity { fields, newer_by: None }.weight()
    };
    let small = weight(Value::Int(1));
    let texts: HashMap<usize, usize> = [10, 1000, 100_000].map(|len| (len, weight(Value::from("x".repeat(len).as_str())))).into();
    assert_eq!(texts[&10], small);
    assert!(texts[&1000] >= small + 1000 && texts[&100_000] >= small + 100_000);
    assert!(weight(Value::Array(Arc::new(Array::from(vec![Value::Null; 500])))) >= small + 500 * size_of::<Value>());
}
