//! The ancestor's element orders, on what its own tool wrote from the bundled model.

use std::fs;
use std::path::Path;

use larql_compute::quant::{Dtype, MatrixView, to_f32};
use safetensors::SafeTensors;

/// Rows kept in `ancestor_q6_k.bin`: the first of the first layer's down projection.
const ROWS: usize = 16;

#[test]
fn q6_k_in_the_ancestors_order_is_the_matrix_that_it_was_made_of() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stored = fs::read(root.join("tests/goldens/ancestor_q6_k.bin")).unwrap();
    let source = fs::read(root.join("larqld/assets/atlas/model.safetensors")).unwrap();
    let source = SafeTensors::deserialize(&source).unwrap();
    let tensor = source.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
    let plain = Dtype::from_tag(&format!("{:?}", tensor.dtype())).unwrap();
    let columns = tensor.shape()[1];
    let source = MatrixView::new(plain, tensor.shape()[0], columns, tensor.data()).unwrap();
    let loss = |dtype: Dtype| {
        let view = MatrixView::new(dtype, ROWS, columns, &stored).unwrap();
        let (mut found, mut expected) = (vec![0.0; columns], vec![0.0; columns]);
        let (mut errors, mut squares) = (0.0, 0.0);
        for row in 0..ROWS {
            view.row_f32(row, &mut found);
            source.row_f32(row, &mut expected);
            for (found, expected) in found.iter().zip(&expected) {
                errors += f64::from(found - expected).powi(2);
                squares += f64::from(*expected).powi(2);
            }
        }
        (errors / squares).sqrt()
    };
    assert!(loss(Dtype::AncestorQ6K) < 0.03, "{}", loss(Dtype::AncestorQ6K));
    assert!(loss(Dtype::Q6K) > 0.5, "read in ggml's order it is garbage");
}

#[test]
fn the_other_layouts_of_the_ancestor_read_as_its_documents_say() {
    let mut block = [0_u8; 137];
    // Nibbles 1 (0.5) and 15 (-6), sub-scales 1 and 2, block scale 3.
    block[..16].fill(0xf1);
    block[16..32].fill(0x1f);
    (block[128], block[129], block[136]) = (0x38, 0x40, 0x44);
    let mut row = [0.0; 256];
    to_f32(Dtype::AncestorFp4, &block, &mut row);
    assert_eq!(row[..2], [0.25, -3.0]);
    assert_eq!(row[32..34], [-6.0, 0.5]);
    assert_eq!(row[64..], [0.0; 192]);

    let mut block = [0x38_u8; 257];
    (block[1], block[256]) = (0xc0, 0x44);
    to_f32(Dtype::AncestorFp8, &block, &mut row);
    assert_eq!(row[..3], [3.0, -6.0, 3.0]);

    let mut block = [0x88_u8; 18];
    block[..2].copy_from_slice(&0x3c00_u16.to_le_bytes());
    block[2] = 0x1f;
    let mut row = [0.0; 32];
    to_f32(Dtype::AncestorQ4_0, &block, &mut row);
    assert_eq!(row[..3], [7.0, -7.0, 0.0]);
}
