# Google's emulators for the tests: found or installed, started on free ports in process groups of their own, ended with the tests.
# Sourced by tests/run. Exports where each listens; says loudly what is missing.

emulator_groups=()
emulator_logs=$PWD/target/emulators/logs
emulators_missing=0

# A process group of its own: Spanner's gateway leaves its child behind when only the gateway is ended.
emulator_start() { # name command…
  local name=$1
  shift
  set -m
  "$@" >"$emulator_logs/$name.log" 2>&1 </dev/null &
  emulator_groups+=($!)
  set +m
}

emulators_stop() {
  local group
  for group in "${emulator_groups[@]:-}"; do
    [ -n "$group" ] && kill -TERM -- "-$group" 2>/dev/null
  done
  # One that waits for a stream to end would stay.
  for group in "${emulator_groups[@]:-}"; do
    [ -n "$group" ] || continue
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      kill -0 -- "-$group" 2>/dev/null || break
      sleep 0.2
    done
    kill -KILL -- "-$group" 2>/dev/null
  done
  emulator_groups=()
}

emulator_listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The ports that emulators listen on are below those that the system gives to outgoing connections.
emulator_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    case " ${emulator_ports:-} " in *" $port "*) continue ;; esac
    emulator_listens "$port" || break
  done
  emulator_ports="${emulator_ports:-} $port"
  picked=$port
}

emulator_ready() { # name port…
  local name=$1 port tries
  shift
  for port in "$@"; do
    for ((tries = 0; tries < 600; tries++)); do
      emulator_listens "$port" && break
      sleep 0.1
    done
    if ((tries == 600)); then
      emulator_missing "$name" "it was started and does not listen on port $port: see $emulator_logs/$name.log"
      return 1
    fi
  done
}

emulator_missing() { # name why
  emulators_missing=$((emulators_missing + 1))
  echo "NO EMULATOR: $1: $2. Its tests are skipped." >&2
}

spanner_start() { # name flag…; sets host and rest
  local binaries=$sdk/bin/cloud_spanner_emulator grpc
  emulator_port && grpc=$picked
  emulator_port && rest=127.0.0.1:$picked
  emulator_start "$1" "$binaries/gateway_main" --hostname 127.0.0.1 --grpc_port "$grpc" --http_port "$picked" "${@:2}"
  host=127.0.0.1:$grpc
  emulator_ready "$1" "$grpc" "$picked"
}

start_spanner() {
  if [ ! -x "$sdk/bin/cloud_spanner_emulator/gateway_main" ]; then
    emulator_missing Spanner "install it with: gcloud components install cloud-spanner-emulator"
    return
  fi
  spanner_start spanner && export SPANNER_EMULATOR_HOST=$host SPANNER_EMULATOR_REST=$rest
  spanner_start spanner-with-faults --enable_fault_injection &&
    export TASUKI_TEST_SPANNER_FAULTS_HOST=$host TASUKI_TEST_SPANNER_FAULTS_REST=$rest
}

start_pubsub() {
  local jar
  jar=$(ls "$sdk"/platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar 2>/dev/null | tail -1)
  if [ -z "$jar" ] || ! command -v java >/dev/null; then
    emulator_missing Pub/Sub "it needs Java and: gcloud components install pubsub-emulator"
    return
  fi
  emulator_port
  emulator_start pubsub java -cp "$jar" com.google.cloud.pubsub.testing.v1.Main --host=127.0.0.1 --port="$picked"
  emulator_ready pubsub "$picked" && export PUBSUB_EMULATOR_HOST=127.0.0.1:$picked
}

# bqemulator needs DuckDB's `spatial` extension, which it would fetch when it starts; a wheel carries it, for this version of DuckDB.
install_bigquery() { # folder
  local there=$1 pins=$PWD/tests/emulators.txt duckdb extensions platform
  cmp -s "$pins" "$there/installed" && return 0
  echo "installing bqemulator into $there" >&2
  duckdb=$(sed -n 's/^duckdb==//p' "$pins")
  rm -rf "$there" && mkdir -p "$there/home" "$there/wheel" || return 1
  {
    python3 -m venv "$there/venv" &&
      "$there/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$pins" &&
      "$there/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$there/wheel" \
        "duckdb-extension-spatial==$duckdb"
  } >&2 || return 1
  platform=$("$there/venv/bin/python" -c 'import duckdb; print(duckdb.sql("PRAGMA platform").fetchone()[0])') || return 1
  extensions=$there/home/.duckdb/extensions/v$duckdb/$platform
  mkdir -p "$extensions" &&
    "$there/venv/bin/python" -m zipfile -e "$there"/wheel/*.whl "$there/wheel/unpacked" &&
    cp "$there/wheel/unpacked/duckdb_extension_spatial/extensions/v$duckdb/spatial.duckdb_extension" "$extensions/" &&
    cp "$pins" "$there/installed"
}

start_bigquery() {
  local there=$PWD/target/emulators/bigquery rest
  if ! command -v python3 >/dev/null || ! install_bigquery "$there"; then
    emulator_missing BigQuery "bqemulator needs python3 with venv, and a package index"
    return
  fi
  emulator_port && rest=$picked
  emulator_port
  emulator_start bigquery env HOME="$there/home" "$there/venv/bin/bqemulator" start \
    --rest-port "$rest" --grpc-port "$picked" --project tasuki-test
  emulator_ready bigquery "$rest" "$picked" &&
    export BIGQUERY_EMULATOR_HOST=127.0.0.1:$rest BIGQUERY_STORAGE_EMULATOR_HOST=127.0.0.1:$picked
}

emulators_start() {
  mkdir -p "$emulator_logs"
  sdk=$(command -v gcloud >/dev/null && gcloud info --format='value(installation.sdk_root)' 2>/dev/null)
  start_spanner
  start_pubsub
  start_bigquery
  if [ "$emulators_missing" -gt 0 ] && [ "${CI:-}" = true ]; then
    echo "CI=true: every emulator must be there" >&2
    return 1
  fi
}
