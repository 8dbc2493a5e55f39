//! Which partition a key falls into: Kafka's default, murmur2 as its Java client computes it. The one home of it: a key that a step computes is
//! checked by it, the embedded log partitions by it (so a topic that is copied from or to Kafka keeps its keys where they are), tools look keys
//! up by it.

use crate::ids::Partition;

/// The partition of a key in a topic of `partitions` partitions (at least one).
pub fn partition_for_key(key: &[u8], partitions: u32) -> Partition {
    assert!(partitions > 0, "a topic has at least one partition");
    // Kafka's `toPositive` clears the sign bit; it is not the absolute value.
    Partition::new((murmur2(key).cast_unsigned() & 0x7fff_ffff) % partitions)
}

/// The hash itself. From `org.apache.kafka.common.utils.Utils.murmur2`.
#[expect(clippy::cast_possible_truncation, reason = "Java's length is an int, and so is a key's")]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_what_kafkas_java_client_computes() {
        // The values of Kafka's own UtilsTest.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ] {
            assert_eq!(murmur2(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn a_keys_partition_is_the_hash_without_its_sign_bit_modulo_the_partitions() {
        // Values that other clients test against; the last two keys have negative hashes, where an absolute value would give 8 of 12.
        for (key, partitions, expected) in [
            ("", 999, 603),
            ("⌘", 100, 25),
            ("oh no", 999, 544),
            ("c03a3475-3ed6-4ed1-8ae5-1c432da43e73", 3, 2),
            ("21", 12, 0),
            ("21", 7, 3),
        ] {
            assert_eq!(partition_for_key(key.as_bytes(), partitions), Partition::new(expected), "{key} of {partitions}");
        }
    }
}
