//! Server certificates that are refused, each in words.

use super::server::Server;

#[tokio::test]
async fn a_certificate_that_is_refused_is_told_in_words_with_the_file_and_what_to_do() {
    let Some(server) = Server::with_tls("cnonly", "").await else {
        return;
    };
    let dir = server.dir.path().display().to_string();
    let ca = format!("{dir}/ca.crt");
    let other = format!("{dir}/other.crt");
    let strange = format!("{dir}/strange.crt");
    let full = "sslmode=verify-full host=db.test";
    for (certificate, parameters, words) in [
        (
            "cnonly",
            format!("{full} sslrootcert={ca}"),
            vec![
                "has no subjectAltName, only a common name (CN) \"db.test\"",
                "issue it again with subjectAltName=DNS:db.test",
                "sslmode=verify-ca",
            ],
        ),
        (
            "version1",
            format!("{full} sslrootcert={ca}"),
            vec![
                "X.509 version 1",
                "version 3 is needed",
                "subjectAltName=DNS:db.test",
            ],
        ),
        (
            "past",
            format!("{full} sslrootcert={ca}"),
            vec![
                "the server's certificate has expired: it is valid from 2020-01-01T00:00:00Z to 2020-01-02T00:00:00Z, and here it is 20",
                "renew it at the server",
            ],
        ),
        (
            "future",
            format!("{full} sslrootcert={ca}"),
            vec![
                "is not valid yet: it is valid from 2049-01-01",
                "check the clocks",
            ],
        ),
        (
            "server",
            format!("sslmode=verify-full host=elsewhere.test sslrootcert={ca}"),
            vec![
                "is for other names: db.test, 127.0.0.1, and not for elsewhere.test",
                "subjectAltName=DNS:elsewhere.test",
            ],
        ),
        (
            "server",
            format!("{full} sslrootcert={other}"),
            vec![
                "not signed by a trusted CA",
                &other,
                "a CA of the right name, \"CN=test ca\", with another key",
            ],
        ),
        (
            "server",
            format!("{full} sslrootcert={strange}"),
            vec![
                "not signed by a trusted CA: it was issued by \"CN=test ca\", and sslrootcert",
                "holds \"CN=strange ca\"",
                &strange,
            ],
        ),
        (
            "server",
            full.to_owned(),
            vec![
                "it was issued by \"CN=test ca\", which is none of this system's CAs",
                "name the file with the right CA in sslrootcert",
            ],
        ),
        (
            "alone",
            format!("{full} sslrootcert={ca}"),
            vec![
                "it is self-signed (CN=db.test), and sslrootcert",
                &ca,
                "add it to",
            ],
        ),
        (
            "client_only",
            format!("{full} sslrootcert={ca}"),
            vec!["is not for servers", "extendedKeyUsage=serverAuth"],
        ),
    ] {
        server.present(certificate).await;
        let target = server.target_with(&format!("hostaddr=127.0.0.1 {parameters}"));
        let error = target.connect().await.unwrap_err();
        assert!(!error.is_away(), "{certificate}: {error}");
        for word in words {
            assert!(error.to_string().contains(word), "{certificate}: {error}");
        }
    }
    // What the words propose helps.
    server.present("cnonly").await;
    let lenient = format!("hostaddr=127.0.0.1 host=db.test sslmode=verify-ca sslrootcert={ca}");
    drop(server.target_with(&lenient).connect().await.unwrap());
}
