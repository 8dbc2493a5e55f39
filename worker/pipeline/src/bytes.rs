//! Comparing short strings, which is what most comparisons of names and values are.

/// Whether both are the same. Up to sixteen bytes are compared in place: the call of a function would cost more than that.
#[inline]
pub(crate) fn same(left: &[u8], right: &[u8]) -> bool {
    let len = left.len();
    if len != right.len() {
        return false;
    }
    // Two words from both ends, which overlap in the middle.
    if let (Some(first), Some(its_first), Some(last), Some(its_last)) =
        (left.first_chunk::<8>(), right.first_chunk::<8>(), left.last_chunk::<8>(), right.last_chunk::<8>())
    {
        return first == its_first && last == its_last && (len <= 16 || left == right);
    }
    if let (Some(first), Some(its_first), Some(last), Some(its_last)) =
        (left.first_chunk::<4>(), right.first_chunk::<4>(), left.last_chunk::<4>(), right.last_chunk::<4>())
    {
        return first == its_first && last == its_last;
    }
    left.iter().zip(right).all(|(byte, its)| byte == its)
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn strings_are_the_same_if_every_byte_is() {
        for len in 0..40 {
            let text: Vec<u8> = (0..len).collect();
            assert!(same(&text, &text.clone()));
            assert!(!same(&text, &[&text[..], b"x"].concat()));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 0x80;
                assert!(!same(&text, &other), "{len} bytes, different at {at}");
            }
        }
    }
}
