//! `.vlp` files: the ancestor's, ours, and hostile ones.

use super::support::*;
use larql_storage::overlay::{
    BaseShape, DeleteKnn, Describe, Fact, LowRank, Matrix, Operation, Overlay, Slot,
};
use larql_storage::patch::{OPERATIONS_MAX, PatchError, PatchFile, Step};

fn base() -> BaseShape {
    BaseShape { hidden: 2, features: vec![8, 8], vocabulary: 100 }
}

fn file(operations: &str) -> String {
    format!(
        r#"{{"version":1,"base_model":"m","created_at":"","tags":[],"operations":[{operations}]}}"#
    )
}

/// `[1.0, -2.0]` as base64 of little-endian f32.
const ROW: &str = "AACAPwAAAMA=";

fn refused(operations: &str) -> String {
    let parsed = PatchFile::parse(file(operations).as_bytes());
    let outcome = parsed.and_then(|patch| patch.check_on(BASE, &base(), false));
    outcome.expect_err(operations).to_string()
}

#[test]
fn every_operation_of_the_ancestor_is_understood() {
    let text = file(&format!(
        r#"{{"op":"insert","layer":1,"feature":3,"relation":"capital","entity":"France","target":"Lyon",
             "confidence":0.9,"gate_vector_b64":"{ROW}","up_vector_b64":"{ROW}","down_vector_b64":"{ROW}",
             "down_meta":{{"t":"Lyon","i":17,"c":3.5}}}},
            {{"op":"update","layer":0,"feature":2,"gate_vector_b64":"{ROW}"}},
            {{"op":"update","layer":0,"feature":4,"down_meta":{{"t":"Nice","i":18,"c":2.0}}}},
            {{"op":"delete","layer":0,"feature":5,"reason":"wrong"}},
            {{"op":"insert_knn","layer":1,"entity":"Italy","relation":"capital","target":"Milan",
              "target_id":7,"confidence":1.0,"key_vector_b64":"{ROW}"}},
            {{"op":"delete_knn","entity":"Italy"}}"#
    ));
    let patch = PatchFile::parse(text.as_bytes()).unwrap();
    patch.check_on(BASE, &base(), false).unwrap();
    let operations = patch.operations_on(&Overlay::default());
    let Operation::SetFeature(set) = &operations[0] else { panic!("{operations:?}") };
    assert_eq!(set.gate.as_deref(), Some(&[1.0, -2.0][..]));
    assert_eq!((set.target_ids.as_slice(), set.target.as_deref()), (&[17][..], Some("Lyon")));
    assert!(matches!(&operations[1], Operation::SetFeature(set) if set.entity.is_none()));
    assert!(
        matches!(&operations[2], Operation::Describe(d) if d.target.as_deref() == Some("Nice"))
    );
    assert_eq!(operations[3], Operation::HideFeature(Slot { layer: 0, feature: 5 }));
    assert!(matches!(&operations[4], Operation::SetKnn(knn) if knn.threshold == 0.75));
    // Which relations an entity had is known when the patch is applied.
    let forgotten = DeleteKnn { entity: "Italy".into(), relation: "capital".into() };
    assert_eq!(operations[5], Operation::DeleteKnn(forgotten));
    assert_eq!(operations.len(), 6);
}

#[test]
fn what_is_written_reads_back_the_same() {
    let slot = Slot { layer: 1, feature: 9 };
    let fact = Fact { entity: "Ä".into(), relation: "r".into(), target: "\"t\"\n".into() };
    let operations = [
        knn("France", "Lyon", 2),
        feature(1, 3, 0.1),
        Operation::HideFeature(slot),
        Operation::RestoreFeature(slot),
        Operation::DeleteKnn(DeleteKnn { entity: "A".into(), relation: "b".into() }),
        Operation::LowRank(LowRank {
            id: (1 << 62) - 1,
            layer: 0,
            matrix: Matrix::Down,
            rank: 1,
            left: [0.1, 1e-30].into(),
            right: [1.0; 8].into(),
            facts: vec![fact],
            confidence: Some(0.75),
        }),
        Operation::DropLowRank { id: (1 << 62) - 1 },
        Operation::Describe(Describe {
            slot,
            relation: Some("r".into()),
            target: None,
            confidence: Some(0.25),
        }),
    ];
    let patch = PatchFile {
        base_model: "atlas".into(),
        base_checksum: Some(format!("sha256:{BASE}")),
        created_at: "2026-01-01T00:00:00Z".into(),
        description: Some("d".into()),
        author: Some("a".into()),
        tags: vec!["x".into()],
        steps: operations.map(Step::Operation).into(),
    };
    let mut written = Vec::new();
    patch.write(&mut written).unwrap();
    assert_eq!(PatchFile::parse(&written).unwrap(), patch);
    patch.check_on(BASE, &base(), false).unwrap();
}

#[test]
fn a_patch_of_another_base_is_refused_unless_forced_and_of_another_width_always() {
    let text =
        file(&format!(r#"{{"op":"update","layer":0,"feature":0,"gate_vector_b64":"{ROW}"}}"#));
    let text = text.replacen("\"created_at\"", "\"base_checksum\":\"beef\",\"created_at\"", 1);
    let patch = PatchFile::parse(text.as_bytes()).unwrap();
    let error = patch.check_on(BASE, &base(), false).unwrap_err();
    assert!(matches!(error, PatchError::OtherBase { .. }), "{error}");
    patch.check_on(BASE, &base(), true).unwrap();
    let wider = BaseShape { hidden: 4, ..base() };
    let error = patch.check_on(BASE, &wider, true).unwrap_err().to_string();
    assert!(error.contains("has 2 values, the model is 4 wide"), "{error}");
}

#[test]
fn vectors_that_are_empty_wrong_nan_or_too_long_are_refused() {
    let update = |vector: &str| {
        refused(&format!(r#"{{"op":"update","layer":0,"feature":0,"gate_vector_b64":"{vector}"}}"#))
    };
    for (vector, problem) in [
        ("", "has no values"),
        ("AACAPw==", "has 1 values, the model is 2 wide"),
        ("AADAfwAAgD8=", "value 0 is NaN"),
        ("AACAfwAAgD8=", "value 0 is inf"),
        ("yvJJcQAAgD8=", "its length is 1.000e30"),
        ("AACAPw", "is no base64"),
        ("AACAPwAAAMA=AAAA", "is no base64"),
        ("AACAPwAAAMA=\\n", "is no base64"),
        ("AACAPwAAAMB=", "is no base64"),
        ("AACAPwAA", "no whole number of f32"),
    ] {
        let error = update(vector);
        assert!(error.contains(problem) && error.contains("number 1"), "{vector}: {error}");
    }
}

#[test]
fn layers_features_and_tokens_beyond_the_base_are_refused() {
    for (operation, problem) in [
        (r#"{"op":"delete","layer":2,"feature":0}"#, "beyond the base's 2 layers"),
        (r#"{"op":"delete","layer":4294967295,"feature":0}"#, "beyond the base's 2 layers"),
        (r#"{"op":"delete","layer":0,"feature":4294967295}"#, "feature: 4294967295 is beyond"),
        (r#"{"op":"delete","layer":-1,"feature":0}"#, "is no patch"),
        (r#"{"op":"delete","layer":4294967296,"feature":0}"#, "is no patch"),
        (r#"{"op":"delete","layer":0}"#, "feature: is missing"),
        (r#"{"op":"explode"}"#, "is no operation"),
        (r#"{"op":"delete","op":"insert","layer":0,"feature":0}"#, "duplicate field"),
        (r#"{"op":"delete","layer":0,"feature":0,"bonus":1}"#, "unknown field"),
    ] {
        let error = refused(operation);
        assert!(error.contains(problem), "{operation}: {error}");
    }
    let knn = format!(
        r#"{{"op":"insert_knn","layer":0,"entity":"A","relation":"b","target":"c","target_id":100,
            "key_vector_b64":"{ROW}"}}"#
    );
    assert!(refused(&knn).contains("token 100 is beyond a vocabulary of 100"));
}

#[test]
fn a_list_of_millions_of_operations_is_refused_without_being_kept() {
    let one = r#"{"op":"drop_low_rank","id":1},"#;
    let mut text = file("").into_bytes();
    text.truncate(text.len() - 2);
    for _ in 0..OPERATIONS_MAX {
        text.extend(one.as_bytes());
    }
    text.extend(br#"{"op":"drop_low_rank","id":1}]}"#);
    let error = PatchFile::parse(&text).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 operations"), "{error}");
}

#[test]
fn what_is_no_patch_is_refused_with_its_place() {
    for text in ["", "[]", "{}", "null", "{\"version\":1}", &"[".repeat(100_000), "\0\0\0\0"] {
        let error = PatchFile::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("is no patch") && error.contains("line"), "{error}");
    }
    let later = file("").replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(PatchFile::parse(later.as_bytes()), Err(PatchError::Version(2))));
}
