//! Masking (RFC 6455 §5.3), which is the same in both directions.

/// Takes the mask off, or puts it on. `key` is the one for the first of the bytes: see [`rotated`].
pub(crate) fn apply(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // By words, which the compiler makes wider where the processor can.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key as it begins behind so many bytes of the payload.
pub(crate) fn rotated(mut key: [u8; 4], behind: usize) -> [u8; 4] {
    key.rotate_left(behind % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_meets_its_own_byte_of_the_key_wherever_the_payload_is_cut() {
        let key = [1, 2, 4, 8];
        let plain: Vec<u8> = (0..40).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        for cut in 0..=plain.len() {
            let mut bytes = masked.clone();
            let (first, second) = bytes.split_at_mut(cut);
            apply(first, key);
            apply(second, rotated(key, cut));
            assert_eq!(bytes, plain, "cut at {cut}");
        }
    }
}
