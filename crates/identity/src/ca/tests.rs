use super::*;
use crate::testing::{DAY, ca, chain, member, member_signed_ago, subject};
use crate::{Identity, Leaf, Role, now_unix};

fn csr() -> String {
    KeyAndCsr::generate().unwrap().csr_pem
}

#[test]
fn a_signed_certificate_says_what_the_ca_decided() {
    let ca = ca("clusterone");
    let now = now_unix();
    // The request asks for another name; nothing of it may survive.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut asked = CertificateParams::new(vec!["manager.evil.example".to_owned()]).unwrap();
    asked.distinguished_name.push(DnType::OrganizationalUnitName, "manager");
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = asked.serialize_request(&key).unwrap().pem().unwrap();
    let subject = subject(&ca, Role::Worker, "node1");
    let chain = ca.sign(request.as_bytes(), &subject, now, DAY).unwrap();

    let leaf = Leaf::from_pem(&chain).unwrap();
    assert_eq!(leaf.subject, subject);
    assert_eq!(leaf.not_before, now - 3600);
    assert_eq!(leaf.not_after, now + DAY.as_secs());
    assert!(leaf.is_valid_at(now) && !leaf.is_valid_at(now + 2 * DAY.as_secs()));
    let ders = certificate::chain_der(&chain).unwrap();
    assert_eq!(ders.len(), 2);
    assert_eq!(CaDigest::of_der(&ders[1]), ca.digest());
    let parsed = certificate::parse(&ders[0]).unwrap();
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    let names: Vec<String> = names.value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "DNSName(worker.clusterone.cluster.internal)",
            "DNSName(node1.clusterone.cluster.internal)"
        ]
    );
}

#[test]
fn der_requests_and_repeated_ones_get_serials_of_their_own() {
    let ca = ca("clusterone");
    let der = pem::parse(csr()).unwrap().into_contents();
    let subject = subject(&ca, Role::Manager, "node1");
    let serial = || {
        let chain = ca.sign(&der, &subject, now_unix(), DAY).unwrap();
        let leaf = certificate::chain_der(&chain).unwrap().remove(0);
        certificate::parse(&leaf).unwrap().raw_serial().to_vec()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn the_root_lives_for_twenty_years() {
    let ca = ca("clusterone");
    let root = certificate::chain_der(ca.cert_pem()).unwrap().remove(0);
    let root = certificate::parse(&root).unwrap();
    let years = (root.validity().not_after.timestamp() - now_unix().cast_signed()) / (365 * 86400);
    assert!((19..=20).contains(&years), "{years}");
    assert!(root.is_ca());
}

#[test]
fn a_restored_ca_signs_as_the_first() {
    let first = ca("clusterone");
    let second = Ca::from_pem(first.cert_pem(), first.key_pem()).unwrap();
    assert_eq!(second.digest(), first.digest());
    assert_eq!(second.cluster_id(), "clusterone");
    let identity = second.issue(&subject(&second, Role::Admin, "root"), now_unix(), DAY).unwrap();
    let leaf = certificate::chain_der(&identity.chain_pem).unwrap().remove(0);
    let roots = certificate::chain_der(first.cert_pem()).unwrap();
    certificate::check_issued_by(&leaf, &roots).unwrap();
}

#[test]
fn a_damaged_or_foreign_ca_is_refused_with_the_reason() {
    let (one, two) = (ca("clusterone"), ca("clustertwo"));
    let error = |cert: &str, key: &SecretPem| Ca::from_pem(cert, key).err().unwrap();
    assert!(matches!(error(one.cert_pem(), two.key_pem()), Error::RootMismatch));
    assert!(matches!(error("garbage", one.key_pem()), Error::RootCertificate(_)));
    let bad_key = SecretPem::new("garbage");
    assert!(matches!(error(one.cert_pem(), &bad_key), Error::RootKey(_)));
    let leaf = one.issue(&subject(&one, Role::Manager, "node1"), now_unix(), DAY).unwrap();
    assert!(matches!(error(&leaf.chain_pem, &leaf.key_pem), Error::NotRoot));
}

#[test]
fn bad_requests_are_refused() {
    let ca = ca("clusterone");
    let worker = subject(&ca, Role::Worker, "node1");
    let error = |csr: &[u8]| ca.sign(csr, &worker, now_unix(), DAY).unwrap_err();
    assert!(matches!(error(b"garbage"), Error::BadRequest(_)));
    assert!(matches!(error(b""), Error::BadRequest(_)));
    assert!(matches!(error(b"-----BEGIN nothing"), Error::RequestNotPem(_)));
    assert!(matches!(error(&vec![b'x'; 20_000]), Error::RequestTooLarge { bytes: 20_000 }));

    // Without the private key, the signature cannot fit.
    let mut stolen = pem::parse(csr()).unwrap().into_contents();
    let last = stolen.len() - 1;
    stolen[last] ^= 1;
    assert!(matches!(error(&stolen), Error::BadRequest(_)));

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    assert!(matches!(error(request.as_bytes()), Error::WrongKeyKind));
}

#[test]
fn ids_that_do_not_fit_a_name_are_refused() {
    for id in ["", "UPPER", "a b", "a.b", "line\nbreak", &"x".repeat(64)] {
        assert!(matches!(Ca::create(id, 0), Err(Error::BadId { .. })), "{id:?}");
    }
    let ca = ca("clusterone");
    let bad = subject(&ca, Role::Worker, "no such/id");
    let error = ca.sign(csr().as_bytes(), &bad, now_unix(), DAY).unwrap_err();
    assert!(chain(&error).contains("node id"), "{error}");
    let foreign = Subject { cluster_id: "clustertwo".into(), ..subject(&ca, Role::Worker, "n") };
    let error = ca.sign(csr().as_bytes(), &foreign, now_unix(), DAY).unwrap_err();
    assert!(matches!(error, Error::OtherCluster { .. }));
}

#[test]
fn a_new_ca_is_believed_by_whoever_trusts_the_old_one_and_sees_the_cross_certificate() {
    let (old, new) = (ca("0000000000001"), ca("0000000000001"));
    assert_ne!(old.common_name, new.common_name);
    let cross = old.cross_sign(&new, now_unix()).unwrap();
    let leaf = member(&new, Role::Worker, "0000000000002");
    assert!(leaf.is_issued_by(new.cert_pem()) && !leaf.is_issued_by(old.cert_pem()));
    let both = format!("{}{}", new.cert_pem(), old.cert_pem());
    let chain = format!("{}{cross}{}", leaf.chain_pem, old.cert_pem());
    let leaf = Identity::new(chain, leaf.key_pem.clone(), both).unwrap();
    assert_eq!(leaf.ca_digests(), [new.digest(), old.digest()]);
    let other = ca("0000000000009");
    assert!(matches!(old.cross_sign(&other, now_unix()), Err(Error::OtherCluster { .. })));
    let again = Ca::from_pem(new.cert_pem(), new.key_pem()).unwrap();
    assert_eq!(again.common_name, new.common_name);
}

#[test]
fn an_expired_certificate_proves_itself_by_its_key() {
    let (ours, other) = (ca("0000000000001"), ca("0000000000001"));
    let slept = member_signed_ago(&ours, Role::Worker, "0000000000002", DAY * 20);
    let signature = slept.sign(b"words").unwrap();
    let verify = |cas: &str, message: &[u8], signature: &[u8]| {
        Leaf::verify(&slept.chain_pem, cas, message, signature)
    };
    let leaf = verify(ours.cert_pem(), b"words", &signature).unwrap();
    assert_eq!(leaf.subject, slept.subject());
    assert!(!leaf.is_valid_at(now_unix()));
    use crate::CertificateError::{Foreign, NotHolder};
    assert!(matches!(verify(other.cert_pem(), b"words", &signature), Err(Foreign)));
    assert!(matches!(verify(ours.cert_pem(), b"other", &signature), Err(NotHolder)));
    let thief = member(&ours, Role::Worker, "0000000000003").sign(b"words").unwrap();
    assert!(matches!(verify(ours.cert_pem(), b"words", &thief), Err(NotHolder)));
}
