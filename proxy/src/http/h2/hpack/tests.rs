//! The examples of RFC 7541 appendix C, what it forbids, and whatever else may come.

use super::decode::Decoder;
use super::encode::{put_field, put_indexed, put_named, put_resize};
use super::table::STATIC;
use super::{Malformed, TABLE_BYTES, huffman};
use proptest::prelude::*;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Malformed> {
    let mut fields = Vec::new();
    decoder.decode(block, &mut |name, value| {
        fields.push((name.to_vec(), value.to_vec()));
        true
    })?;
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// Blocks of one connection, one after the other: what they say, and how large the table is then.
fn check(size_max: usize, blocks: &[(&str, &str, usize)]) {
    let mut decoder = Decoder::default();
    assert!(decoder.table().resize(size_max));
    for (hex, expected, size) in blocks {
        let fields = decode(&mut decoder, &bytes(hex)).expect("an example");
        let lines: Vec<_> = fields
            .iter()
            .map(|(name, value)| [name, &b": "[..], value].concat())
            .collect();
        let text = String::from_utf8(lines.join(&b'\n')).expect("ASCII");
        let expected: Vec<_> = expected.lines().map(str::trim).collect();
        assert_eq!(text, expected.join("\n"));
        assert_eq!(decoder.table().size(), *size, "{text}");
    }
}

#[test]
fn examples_of_fields() {
    let literal = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check(TABLE_BYTES, &[(literal, "custom-key: custom-header", 55)]);
    check(
        TABLE_BYTES,
        &[(
            "040c 2f73 616d 706c 652f 7061 7468",
            ":path: /sample/path",
            0,
        )],
    );
    check(
        TABLE_BYTES,
        &[(
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            "password: secret",
            0,
        )],
    );
    check(TABLE_BYTES, &[("82", ":method: GET", 0)]);
}

const REQUESTS: [&str; 3] = [
    ":method: GET
     :scheme: http
     :path: /
     :authority: www.example.com",
    ":method: GET
     :scheme: http
     :path: /
     :authority: www.example.com
     cache-control: no-cache",
    ":method: GET
     :scheme: https
     :path: /index.html
     :authority: www.example.com
     custom-key: custom-value",
];

#[test]
fn examples_of_requests() {
    let [first, second, third] = REQUESTS;
    let plain = [
        (
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            first,
            57,
        ),
        ("8286 84be 5808 6e6f 2d63 6163 6865", second, 110),
        (
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            third,
            164,
        ),
    ];
    check(TABLE_BYTES, &plain);
    let coded = [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", first, 57),
        ("8286 84be 5886 a8eb 1064 9cbf", second, 110),
        (
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            third,
            164,
        ),
    ];
    check(TABLE_BYTES, &coded);
}

const RESPONSES: [&str; 3] = [
    ":status: 302
     cache-control: private
     date: Mon, 21 Oct 2013 20:13:21 GMT
     location: https://www.example.com",
    ":status: 307
     cache-control: private
     date: Mon, 21 Oct 2013 20:13:21 GMT
     location: https://www.example.com",
    ":status: 200
     cache-control: private
     date: Mon, 21 Oct 2013 20:13:22 GMT
     location: https://www.example.com
     content-encoding: gzip
     set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
];

#[test]
fn examples_of_responses_which_push_entries_out() {
    let [first, second, third] = RESPONSES;
    let plain = [
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d \
             546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            first,
            222,
        ),
        ("4803 3330 37c1 c0bf", second, 222),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f \
             6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b \
             2076 6572 7369 6f6e 3d31",
            third,
            215,
        ),
    ];
    check(256, &plain);
    let coded = [
        (
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
             8f0b 97c8 e9ae 82ae 43d3",
            first,
            222,
        ),
        ("4883 640e ffc1 c0bf", second, 222),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
             dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            third,
            215,
        ),
    ];
    check(256, &coded);
}

#[test]
fn what_no_block_may_hold() {
    for (what, hex) in [
        ("index 0", "80"),
        ("an index beyond the table", "be"),
        ("a name beyond the table", "7e 01 61"),
        ("a number without its end", "ff"),
        (
            "a number that never ends",
            "ff ff ff ff ff ff ff ff ff ff 00",
        ),
        ("a value that is not all there", "04 03 2f 61"),
        ("no value", "04"),
        ("a table of 4097 bytes", "3f e2 1f"),
        ("a new size behind a field", "82 20"),
        ("a byte of padding", "04 82 63 ff"),
        ("padding that is not ones", "04 81 18"),
        ("EOS", "04 84 ff ff ff ff"),
    ] {
        let found = decode(&mut Decoder::default(), &bytes(hex));
        assert!(found.is_err(), "{what}: {found:?}");
    }
    let fields =
        decode(&mut Decoder::default(), &bytes("20 3f e1 1f 82")).expect("two sizes, then a field");
    assert_eq!(fields.len(), 1);
}

#[test]
fn a_block_may_not_stand_for_much_more_than_it_holds() {
    // A name of 4000 bytes for the table, and then its index by two bytes each time.
    let name = [&[0x40, 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000], &[0]].concat();
    let again = |times: usize| [name.clone(), [0x7e, 0].repeat(times)].concat();
    assert!(decode(&mut Decoder::default(), &again(50)).is_ok());
    let refused = decode(&mut Decoder::default(), &again(100));
    assert_eq!(refused, Err(super::TOO_MUCH));
    // Nor where nobody wants to hear it.
    let unheard = Decoder::default().decode(&again(100), &mut |_, _| false);
    assert_eq!(unheard, Err(super::TOO_MUCH));
}

#[test]
fn at_rest_there_is_the_table_and_nothing_else() {
    let mut decoder = Decoder::default();
    // `a: 000...` in Huffman's code, then its name with another value.
    let long = [&b"\x40\x01a\xff\xd1\x0e"[..], &[0; 2000]].concat();
    decode(&mut decoder, &[&long, &b"\x7e\x01b"[..]].concat()).expect("fields");
    assert!(decoder.room() >= 3200);
    decoder.rest();
    assert_eq!(decoder.room(), 0);
    let fields = decode(&mut decoder, b"\xbe").expect("a field");
    assert_eq!(fields, [(b"a".to_vec(), b"b".to_vec())]);
}

#[test]
fn numbers_of_several_bytes() {
    // RFC 7541 section C.1.2, as a length.
    let mut block = vec![
        0x00,
        0x01,
        b'x',
        0x7f,
        0x80 | (1337_u32 - 127).to_le_bytes()[0] & 0x7f,
        0x09,
    ];
    block.extend([b'y'; 1337]);
    let fields = decode(&mut Decoder::default(), &block).expect("a long value");
    assert_eq!(fields, [(b"x".to_vec(), vec![b'y'; 1337])]);
    let mut written = Vec::new();
    put_field(&mut written, b"X", &[b'y'; 1337]);
    assert_eq!(written, block);
}

#[test]
fn a_name_whose_entry_goes_for_it() {
    let mut decoder = Decoder::default();
    assert!(decoder.table().resize(64));
    // `ab: c` to be remembered, then the same name with a value that leaves no room for the first.
    let fields = decode(
        &mut decoder,
        b"\x40\x02ab\x01c\x7e\x14dddddddddddddddddddd\xbe",
    )
    .expect("fields");
    let long = (b"ab".to_vec(), vec![b'd'; 20]);
    assert_eq!(
        fields,
        [(b"ab".to_vec(), b"c".to_vec()), long.clone(), long]
    );
    // One that never fits empties the table (RFC 7541 section 4.4).
    let large = [&b"\x40\x01a\x28"[..], &[b'e'; 40]].concat();
    decode(&mut decoder, &large).expect("a field");
    assert_eq!(decoder.table().size(), 0);
    assert!(decode(&mut decoder, b"\xbe").is_err());
}

fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let known = (0..STATIC.len()).prop_map(|place| {
        let (name, value) = STATIC[place];
        (name.as_bytes().to_vec(), value.as_bytes().to_vec())
    });
    let any = (
        "[a-z-]{1,40}",
        proptest::collection::vec(any::<u8>(), 0..300),
    );
    prop_oneof![
        known,
        any.prop_map(|(name, value)| (name.into_bytes(), value))
    ]
}

proptest! {
    #[test]
    fn fields_survive(fields in proptest::collection::vec(field(), 0..20)) {
        let mut block = Vec::new();
        put_resize(&mut block, 0);
        for (name, value) in &fields {
            put_field(&mut block, &name.to_ascii_uppercase(), value);
        }
        put_named(&mut block, 4, b"/a");
        put_indexed(&mut block, 2);
        let mut found = decode(&mut Decoder::default(), &block).expect("what we write");
        let last = found.split_off(fields.len());
        prop_assert_eq!(found, fields);
        prop_assert_eq!(last, [(b":path".to_vec(), b"/a".to_vec()), (b":method".to_vec(), b"GET".to_vec())]);
    }

    #[test]
    fn codes_survive(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut found = Vec::new();
        huffman::decode(&huffman::encode(&text), &mut found).expect("what we write");
        prop_assert_eq!(found, text);
    }

    /// Whatever they are, they do not panic, and the table stays within its limit.
    #[test]
    fn garbage(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let mut decoder = Decoder::default();
        for block in blocks {
            let decoded = decode(&mut decoder, &block);
            prop_assert!(decoder.table().size() <= TABLE_BYTES);
            if decoded.is_err() {
                break;
            }
        }
    }

    /// The table against one that does as RFC 7541 section 4 says, word by word.
    #[test]
    fn the_table_is_that_of_the_standard(
        fields in proptest::collection::vec((0_usize..80, 0_usize..3000), 1..100), size_max in 0_usize..=TABLE_BYTES,
    ) {
        let mut decoder = Decoder::default();
        decoder.table().resize(size_max);
        let mut expected: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (number, (name, value)) in fields.into_iter().enumerate() {
            let byte = number.to_le_bytes()[0];
            let (name, value) = (vec![byte; name], vec![!byte; value]);
            decoder.table().insert(&name, &value);
            expected.insert(0, (name, value));
            let mut size = 0;
            expected.retain(|(name, value)| {
                size += name.len() + value.len() + 32;
                size <= size_max
            });
            for (index, (name, value)) in (62..).zip(&expected) {
                prop_assert_eq!(decoder.table().get(index), Some((&name[..], &value[..])));
            }
            prop_assert_eq!(decoder.table().get(62 + expected.len()), None);
        }
    }
}
