//! Tables of facts from files of every kind, those that are damaged or hostile included.

use std::sync::Arc;

use ::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use larql_planner::catalog::Table as _;
use larql_planner::value::Value;
use larql_storage::file::DiskFiles;

use super::*;

struct Fixture {
    directory: tempfile::TempDir,
    tables: Tables,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tables = Self::open(directory.path());
        Self { directory, tables }
    }

    fn open(directory: &Path) -> Tables {
        Tables::open(Arc::new(DiskFiles), directory.join("tables"))
    }

    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(file);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Makes the table `t` of a file of these bytes.
    fn create(&self, file: &str, bytes: impl AsRef<[u8]>) -> Result<Arc<FactsTable>, Failure> {
        let path = self.write(file, bytes);
        let made = self.tables.create("t", &path, (&DiskFiles, &path), &Cancel::new());
        if made.is_ok() {
            self.tables.drop_table("t").unwrap();
        }
        made
    }
}

fn shown(table: &FactsTable) -> Vec<String> {
    let columns = table.columns().iter().map(|column| format!("{} {}", column.name, column.kind));
    let rows = (0..table.rows() as usize).filter_map(|at| table.row(at));
    let rows = rows.map(|row| row.iter().map(Value::to_string).collect::<Vec<_>>().join(" "));
    std::iter::once(columns.collect::<Vec<_>>().join(", ")).chain(rows).collect()
}

#[test]
fn columns_take_the_tightest_type_that_holds_every_field() {
    let fixture = Fixture::new();
    let text = "city,people,share,seat,code,none\nParis,2100000,0.5,TRUE,007,\n\"a, \"\"b\"\"\",-3,12,false,1,\n,,,,,\n";
    let table = fixture.create("a.csv", text).unwrap();
    assert_eq!(
        shown(&table),
        [
            "city text, people integer, share real, seat boolean, code text, none text",
            "\"Paris\" 2100000 0.5 TRUE \"007\" NULL",
            "\"a, \\\"b\\\"\" -3 12.0 FALSE \"1\" NULL",
            "NULL NULL NULL NULL NULL NULL",
        ]
    );
}

#[test]
fn tabs_separate_without_quotes_and_a_backslash_escapes() {
    let fixture = Fixture::new();
    let table = fixture.create("a.tsv", "a\tb\n\"x\ty, z\r\n\\N\t\\t\\d\n").unwrap();
    assert_eq!(shown(&table), ["a text, b text", "\"\\\"x\" \"y, z\"", "NULL \"\\t\\\\d\""]);
}

#[test]
fn numbers_that_do_not_fit_are_reals_and_words_like_nan_are_text() {
    let fixture = Fixture::new();
    let table = fixture.create("a.csv", "a,b,c\n9223372036854775808,nan,1e999\n1,2,3\n").unwrap();
    assert_eq!(shown(&table)[0], "a real, b text, c text");
}

#[test]
fn a_file_that_is_no_table_says_where_it_is_wrong() {
    let fixture = Fixture::new();
    for (bytes, words) in [
        (&b""[..], "no columns"),
        (b"a,b\n1\n", "line 2 has 1 fields"),
        (b"a,b\n1,2\n1,2,3\n", "line 3 has 3 fields"),
        (b"a,b\n1,\xff\n", "line 2: field 2 is not UTF-8"),
        (b"a,A\n", "both called"),
        (b"a,,c\n", "column 2 has no usable name"),
        (b"a\0b,c\n", "column 1 has no usable name"),
    ] {
        let failure = fixture.create("a.csv", bytes).unwrap_err();
        assert_eq!(failure.code, code::BAD_FILE, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
    let huge = format!("a\n\"{}\"\n", "x".repeat(2 << 20));
    assert_eq!(fixture.create("a.csv", huge).unwrap_err().code, code::LIMIT);
    let wide = vec!["x"; COLUMNS_MAX + 1].join(",");
    assert!(fixture.create("a.csv", wide).is_err());
    assert_eq!(fixture.create("a.txt", "a\n").unwrap_err().code, code::INVALID_PARAMETER);
}

#[test]
fn what_is_no_regular_file_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new();
    let fifo = fixture.directory.path().join("pipe.csv");
    let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let zero = fixture.directory.path().join("zero.csv");
    std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
    let memory = fixture.directory.path().join("memory.csv");
    std::os::unix::fs::symlink("/proc/self/mem", &memory).unwrap();
    let missing = fixture.directory.path().join("missing.csv");
    for path in [&fifo, &zero, &memory, &missing, &fixture.directory.path().to_owned()] {
        let failure =
            fixture.tables.create("t", path, (&DiskFiles, path), &Cancel::new()).unwrap_err();
        assert_ne!(failure.code, code::INTERNAL, "{}: {failure}", path.display());
    }
    assert_eq!(fixture.tables.snapshot().names().count(), 0);
    let left = std::fs::read_dir(fixture.directory.path().join("tables"));
    assert_eq!(left.map_or(0, Iterator::count), 0);
}

#[test]
fn a_table_outlives_its_file_and_the_daemon_until_it_is_dropped() {
    let fixture = Fixture::new();
    let path = fixture.write("facts.csv", "a\n1\n");
    fixture.tables.create("Facts", &path, (&DiskFiles, &path), &Cancel::new()).unwrap();
    let again =
        fixture.tables.create("FACTS", &path, (&DiskFiles, &path), &Cancel::new()).unwrap_err();
    assert_eq!(again.code, code::EXISTS);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(fixture.directory.path().join("tables/.7.csv"), "half").unwrap();

    let restarted = Fixture::open(fixture.directory.path());
    let snapshot = restarted.snapshot();
    let files = DiskFiles;
    assert_eq!(shown(&snapshot.get("facts", &files).unwrap().unwrap()), ["a integer", "1"]);
    restarted.drop_table("fActs").unwrap();
    assert!(restarted.snapshot().get("facts", &files).unwrap().is_none());
    // Who began with the table keeps it.
    assert!(snapshot.get("facts", &files).unwrap().is_some());
    assert_eq!(restarted.drop_table("facts").unwrap_err().code, code::UNDEFINED_TABLE);
    assert_eq!(std::fs::read_dir(fixture.directory.path().join("tables")).unwrap().count(), 0);
}

#[test]
fn a_table_that_could_not_be_read_once_is_read_the_next_time() {
    let fixture = Fixture::new();
    let path = fixture.write("facts.csv", "a\n1\n");
    fixture.tables.create("facts", &path, (&DiskFiles, &path), &Cancel::new()).unwrap();
    let restarted = Fixture::open(fixture.directory.path());
    let kept = fixture.directory.path().join("tables/facts.csv");
    let aside = fixture.directory.path().join("aside.csv");
    std::fs::rename(&kept, &aside).unwrap();
    let snapshot = restarted.snapshot();
    assert_eq!(snapshot.get("facts", &DiskFiles).unwrap_err().code, code::NO_SUCH_FILE);
    std::fs::rename(&aside, &kept).unwrap();
    assert_eq!(snapshot.get("facts", &DiskFiles).unwrap().unwrap().rows(), 1);
}

#[test]
fn unsigned_numbers_above_every_integer_make_their_column_real() {
    let schema = "message m { required int64 n (INTEGER(64, false)); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[7, -1], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();
    let table = Fixture::new().create("a.parquet", bytes).unwrap();
    assert_eq!(shown(&table), ["n real", "7.0", "1.8446744073709552e19"]);
}

#[test]
fn a_name_that_could_leave_the_directory_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.write("a.csv", "a\n1\n");
    for name in ["", "../x", "a/b", ".x", "1a", "a b", "é", &"x".repeat(64)] {
        let failure =
            fixture.tables.create(name, &path, (&DiskFiles, &path), &Cancel::new()).unwrap_err();
        assert_eq!(failure.code, code::INVALID_PARAMETER, "{name:?}");
    }
}

#[test]
fn a_cancel_stops_the_copy() {
    let fixture = Fixture::new();
    let path = fixture.write("a.csv", "a\n1\n");
    let cancel = Cancel::new();
    cancel.cancel();
    let failure = fixture.tables.create("t", &path, (&DiskFiles, &path), &cancel).unwrap_err();
    assert_eq!(failure.code, code::CANCELLED);
}

/// A parquet file of three flat columns with a NULL in each.
fn parquet_file() -> Vec<u8> {
    parquet_file_in(Compression::UNCOMPRESSED)
}

/// The same, compressed.
fn parquet_file_in(compression: Compression) -> Vec<u8> {
    let schema =
        "message m { optional binary city (UTF8); optional int64 people; optional double share; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut file = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = file.next_row_group().unwrap();
    let levels = Some(&[1_i16, 0, 1][..]);
    let mut column = group.next_column().unwrap().unwrap();
    let words = [ByteArray::from("Paris"), ByteArray::from("東京")];
    column.typed::<ByteArrayType>().write_batch(&words, levels, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[3, -7], levels, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[0.5, 2.0], levels, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();
    bytes
}

#[test]
fn a_parquet_file_reads_the_same_in_every_compression_that_is_named() {
    let fixture = Fixture::new();
    let plain = shown(&fixture.create("a.parquet", parquet_file()).unwrap());
    for compression in [
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let table = fixture.create("a.parquet", parquet_file_in(compression)).unwrap();
        assert_eq!(shown(&table), plain, "{compression}");
    }
}

#[test]
fn parquet_columns_keep_their_types() {
    let fixture = Fixture::new();
    let table = fixture.create("a.parquet", parquet_file()).unwrap();
    assert_eq!(
        shown(&table),
        [
            "city text, people integer, share real",
            "\"Paris\" 3 0.5",
            "NULL NULL NULL",
            "\"東京\" -7 2.0"
        ]
    );
}

/// A page's header as Thrift's compact protocol has it, with this unpacked size.
fn page_sizes(unpacked: u32, packed: u32) -> Vec<u8> {
    let varint = |number: u32| {
        let mut zigzag = u64::from(number) << 1;
        let mut bytes = Vec::new();
        while zigzag >= 0x80 {
            bytes.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        bytes.push(zigzag as u8);
        bytes
    };
    [&[0x15, 0, 0x15][..], &varint(unpacked), &[0x15], &varint(packed)].concat()
}

#[test]
fn a_page_that_unpacks_to_more_than_it_says_or_to_too_much_is_refused_before_it_is_unpacked() {
    use std::io::Write as _;
    let schema = Arc::new(parse_message_type("message m { required binary a (UTF8); }").unwrap());
    let build = |compression| {
        let mut bytes = Vec::new();
        let properties = WriterProperties::builder().set_dictionary_enabled(false);
        let properties = Arc::new(properties.set_compression(compression).build());
        let mut file = SerializedFileWriter::new(&mut bytes, schema.clone(), properties).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let long = ByteArray::from("x".repeat(3000).as_str());
        column.typed::<ByteArrayType>().write_batch(&[long], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
        bytes
    };
    let fixture = Fixture::new();
    let gzip = build(Compression::GZIP(GzipLevel::default()));
    assert_eq!(fixture.create("a.parquet", &gzip).unwrap().rows(), 1);
    // The first page begins after the magic number: its kind, and both sizes.
    let start = gzip.windows(2).position(|two| two == [0x1F, 0x8B]).unwrap();
    let mut bomb = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut bomb, flate2::Compression::fast());
    encoder.write_all(&vec![0; 4 << 20]).unwrap();
    encoder.finish().unwrap();
    let rest = gzip[4..start].iter().skip(3 + 2 + 1 + 1).copied().collect::<Vec<_>>();
    for (unpacked, expected) in [(3004, code::BAD_FILE), (i32::MAX as u32, code::LIMIT)] {
        let header = page_sizes(unpacked, bomb.len() as u32);
        let mut input = [&header[..], &rest[..], &bomb[..]].concat();
        input.extend([0; 8]);
        let metadata = SerializedFileReader::new(bytes::Bytes::from(gzip.clone())).unwrap();
        let metadata = metadata.metadata().clone();
        let mut whole = gzip[..4].to_vec();
        whole.extend(&input);
        let failure = parquet_pages::check(&whole, &metadata, &Cancel::new()).unwrap_err();
        assert_eq!(failure.code, expected, "{failure}");
    }
}

#[test]
fn a_damaged_parquet_file_is_refused_or_read_and_never_ends_the_process() {
    let fixture = Fixture::new();
    let whole = parquet_file();
    for length in (0..whole.len()).step_by(7) {
        let failure = fixture.create("a.parquet", &whole[..length]).unwrap_err();
        assert_eq!(failure.code, code::BAD_FILE, "{length}: {failure}");
    }
    for at in (0..whole.len()).step_by(3) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        if let Err(failure) = fixture.create("a.parquet", &flipped) {
            assert!([code::BAD_FILE, code::LIMIT].contains(&failure.code), "{at}: {failure}");
        }
    }
}
