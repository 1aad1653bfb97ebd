//! What an answer that was retrieved does to logits.
//!
//! The decoder says which keys a position's input was close to ([`Match`](super::Match)); who runs it
//! knows the text, and whether it names the entity that an entry is of. Where it does, the entry's
//! first token is made the likeliest; its other tokens follow while it is written.

/// How far the forced token is put above the next: its probability is then above `1 - 1e-6`.
const LEAD: f32 = 24.0;

/// Makes a token the likeliest; the order of all others stays.
///
/// # Shapes
/// `logits`: `[vocabulary]`; a token beyond it changes nothing.
pub fn force(logits: &mut [f32], token: u32) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = most + LEAD;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_token_is_the_likeliest_and_the_others_keep_their_order() {
        let mut logits = vec![1.0, 5.0, -2.0, 4.0];
        force(&mut logits, 2);
        assert_eq!(logits, [1.0, 5.0, 29.0, 4.0]);
        force(&mut logits, 9);
        assert_eq!(logits, [1.0, 5.0, 29.0, 4.0]);
    }
}
