//! `${NAME}` in a value stands for an environment variable.

/// Replaces `${NAME}` by the variable's value, once: what a variable holds is taken as it is.
///
/// # Errors
/// What is wrong with the variable, with its name.
pub(super) fn expand(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else {
            break;
        };
        let name = &rest[start + 2..start + length];
        out.push_str(&rest[..start]);
        out.push_str(&variable(name)?);
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
        return Err("between ${ and } there is no name of an environment variable".into());
    }
    std::env::var(name).map_err(|e| match e {
        std::env::VarError::NotPresent => {
            format!("the environment variable {name} is not set: set it")
        }
        std::env::VarError::NotUnicode(_) => {
            format!("the environment variable {name} is not UTF-8: set it anew")
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn variables_are_replaced_once_and_the_rest_stays() {
        let home = std::env::var("PATH").unwrap();
        assert_eq!(expand("a${PATH}b").unwrap(), format!("a{home}b"));
        for same in ["", "ab", "$PATH", "${PATH", "}${"] {
            assert_eq!(expand(same).unwrap(), same);
        }
        let unset = expand("${REID_TEST_UNSET_VARIABLE}").unwrap_err();
        assert!(unset.contains("REID_TEST_UNSET_VARIABLE"), "{unset}");
        let odd = expand("${pass word}").unwrap_err();
        assert!(!odd.contains("pass word"), "{odd}");
    }
}
