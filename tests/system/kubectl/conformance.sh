#!/usr/bin/env bash
# What people do with kubectl, done with the kubectl given, against a real server on a real store.
#
#     conformance.sh KUBECTL
#
# Prints one line for each check and ends with status 0 if all hold.
set -euo pipefail

kubectl_binary=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
root=$(realpath "$here/../../..")
python=${PYTHON:-$root/.venv/bin/python}
work=$(mktemp -d)
export HOME=$work KUBECONFIG=$work/admin TERM=dumb
unset KUBE_EDITOR EDITOR VISUAL

coproc server { PYTHONPATH=$root/src:$root exec "$python" "$here/serve.py" "$work"; }
server_pid=$!
exec 9>&"${server[1]}"
finish() {
    exec 9>&-
    eval "exec ${server[1]}>&-"
    wait "$server_pid" || true
    rm -rf "$work"
}
trap finish EXIT
read -r -t 60 -u "${server[0]}" greeting && [ "$greeting" = ready ] || { echo "the server did not start" >&2; exit 1; }

k() { "$kubectl_binary" "$@"; }
as() { local user=$1; shift; KUBECONFIG=$work/$user k "$@"; }
modern() { [ "$minor" -ge 28 ]; }
minor=$(k version --client -o json | tr -d '\n ' | sed 's/.*"minor":"\([0-9]*\).*/\1/')
count=0

ok() {
    count=$((count + 1))
    echo "ok $count - $*"
}

fail() {
    echo "not ok - $*" >&2
    [ -s "$work/output" ] && sed 's/^/    /' "$work/output" >&2
    exit 1
}

# check NAME PATTERN COMMAND...: the command succeeds and prints a line that matches.
check() {
    local name=$1 pattern=$2
    shift 2
    timeout 30 bash -c 'exec "$@"' bash "$@" >"$work/output" 2>&1 || fail "$name (status $?): $*"
    grep -Eq -- "$pattern" "$work/output" || fail "$name (no match for $pattern): $*"
    ok "$name"
}

# refuse NAME PATTERN COMMAND...: the command fails and says why.
refuse() {
    local name=$1 pattern=$2
    shift 2
    if timeout 30 bash -c 'exec "$@"' bash "$@" >"$work/output" 2>&1; then fail "$name (succeeded): $*"; fi
    grep -Eq -- "$pattern" "$work/output" || fail "$name (no match for $pattern): $*"
    ok "$name"
}

# equal NAME EXPECTED COMMAND...: the command succeeds and prints exactly that.
equal() {
    local name=$1 expected=$2
    shift 2
    "$@" >"$work/output" 2>&1 || fail "$name (status $?): $*"
    [ "$(cat "$work/output")" = "$expected" ] || fail "$name (expected $expected): $*"
    ok "$name"
}

K=$kubectl_binary
vm() {
    cat <<VM
apiVersion: carmel.dev/v1alpha1
kind: VirtualMachine
metadata:
  name: $1
  labels: {app: $1, tier: front}
spec:
  cpu: {count: ${2:-2}}
  memory: {size: 1Gi}
  disks:
  - {name: root, size: 4Gi, bus: virtio}
VM
}

# -- discovery ------------------------------------------------------------------------------------------------------
check "api-versions" '^carmel.dev/v1alpha1$' "$K" api-versions
check "api-resources" '^virtualmachines +vm,vms' "$K" api-resources
check "api-resources by group" '^images' "$K" api-resources --api-group=carmel.dev -o wide
check "api-resources by verb" '^virtualmachines' "$K" api-resources --verbs=list,watch --namespaced
check "version" 'Server Version' "$K" version
check "raw health" '^ok$' "$K" get --raw /healthz
check "raw readiness" 'readyz check passed' "$K" get --raw '/readyz?verbose'
check "raw metrics" '^carmel_apiserver_requests_total' "$K" get --raw /metrics
check "explain a kind" 'KIND: +VirtualMachine' "$K" explain vm
check "explain a field" 'vCPUs' "$K" explain vm.spec.cpu
check "explain deeply" 'topology' "$K" explain vm --recursive
check "explain metadata" 'labels' "$K" explain vm.metadata
check "explain a core kind" 'KIND: +Secret' "$K" explain secrets
check "nothing there" 'No resources found' "$K" get vm
refuse "an unknown kind" "doesn't have a resource type" "$K" get nonsense
refuse "an unknown name" 'NotFound.*"nobody" not found' "$K" get vm nobody
check "ignore what is not found" '^$|^ *$' bash -c "'$K' get vm nobody --ignore-not-found; echo"

# -- create, get in every shape ---------------------------------------------------------------------------------------
vm web >"$work/web.yaml"
check "create" 'virtualmachine.carmel.dev/web created' "$K" create -f "$work/web.yaml"
refuse "create twice" 'AlreadyExists' "$K" create -f "$work/web.yaml"
check "wait for a condition" 'condition met' "$K" wait --for=condition=Ready vm/web --timeout=10s
if modern; then
    check "wait for a value" 'condition met' "$K" wait --for=jsonpath='{.status.powerState}'=PoweredOn vm/web --timeout=10s
fi
check "get" '^web +PoweredOn +True +2 +1Gi +10.0.2.15 +[0-9]+s$' "$K" get vm web
check "get wide" '^NAME +POWER .*ACCELERATOR' "$K" get vm -o wide
check "get by short name" '^web' "$K" get vms
check "get by full name" '^web' "$K" get virtualmachines.v1alpha1.carmel.dev
check "get all" '^web' "$K" get all
check "get everywhere" '^default +web' "$K" get vm -A
check "get with labels" 'app=web,tier=front' "$K" get vm --show-labels
check "get with a label column" 'FRONT|front' "$K" get vm -L tier
check "get sorted" '^web' "$K" get vm --sort-by=.metadata.name
check "get as YAML" '^  cpu:' "$K" get vm web -o yaml
check "get as JSON" '"powerState": "PoweredOn"' "$K" get vm web -o json
equal "get a field" 2 k get vm web -o jsonpath='{.spec.cpu.count}'
equal "get names" virtualmachine.carmel.dev/web k get vm -o name
check "get columns" '^web +2$' "$K" get vm -o custom-columns=NAME:.metadata.name,CPUS:.spec.cpu.count
check "get by a template" '^web=1Gi$' "$K" get vm -o go-template='{{range .items}}{{.metadata.name}}={{.spec.memory.size}}{{"\n"}}{{end}}'
check "select by label" '^web' "$K" get vm -l 'app in (web,db),tier!=back'
check "select nothing" 'No resources found' "$K" get vm -l app=db
check "select by field" '^web' "$K" get vm --field-selector metadata.name=web
refuse "select by an unknown field" 'field label not supported' "$K" get vm --field-selector spec.cpu.count=2
check "pages of one" 'team +Active' "$K" get ns --chunk-size=1
check "several kinds" 'virtualmachine.carmel.dev/web' "$K" get vm,secrets,images
check "create elsewhere" 'created' bash -c "'$K' create ns extra && '$K' -n extra create -f '$work/web.yaml'"
refuse "create nowhere" 'namespaces "nowhere" not found' "$K" -n nowhere create -f "$work/web.yaml"
check "create on trial" 'created \(server dry run\)' "$K" -n team create -f "$work/web.yaml" --dry-run=server
check "a trial leaves nothing" 'No resources found' "$K" -n team get vm
check "create a secret" 'secret/keys created' "$K" create secret generic keys --from-literal=userdata=hello
equal "read a secret" aGVsbG8= k get secret keys -o jsonpath='{.data.userdata}'
check "describe a secret" 'userdata: +5 bytes' "$K" describe secret keys

# -- validation -------------------------------------------------------------------------------------------------------
sed 's/count: 2/count: 0/; s/name: web/name: bad/' "$work/web.yaml" >"$work/bad.yaml"
refuse "a value out of range" 'spec.cpu.count: Invalid value' "$K" create -f "$work/bad.yaml"
sed 's/cpu:/cpuu:/; s/name: web/name: bad/' "$work/web.yaml" >"$work/unknown.yaml"
refuse "an unknown field" 'unknown field .*cpuu' "$K" create -f "$work/unknown.yaml"
sed 's/name: web/name: Bad_Name/' "$work/web.yaml" >"$work/name.yaml"
refuse "a bad name" 'metadata.name: Invalid value' "$K" create -f "$work/name.yaml"

# -- apply, diff, edit, patch -----------------------------------------------------------------------------------------
vm app >"$work/app.yaml"
check "apply creates" 'app created' "$K" apply -f "$work/app.yaml"
check "apply again" 'app unchanged' "$K" apply -f "$work/app.yaml"
vm app 4 | sed '/tier/s/, tier: front//' >"$work/app2.yaml"
"$K" diff -f "$work/app2.yaml" >"$work/output" 2>&1 && fail "diff finds nothing" || [ $? = 1 ] || fail "diff"
grep -Eq '^\+.*count: 4' "$work/output" || fail "diff shows no change"
ok "diff"
check "apply changes" 'app configured' "$K" apply -f "$work/app2.yaml"
equal "apply took the label away" '{"app":"app"}' k get vm app -o jsonpath='{.metadata.labels}'
equal "apply changed a field" 4 k get vm app -o jsonpath='{.spec.cpu.count}'
check "diff finds nothing more" '^$' bash -c "'$K' diff -f '$work/app2.yaml'; echo"
check "apply on trial" 'unchanged \(server dry run\)|configured \(server dry run\)' "$K" apply --dry-run=server -f "$work/app2.yaml"
check "view what was applied" 'count: 4' "$K" apply view-last-applied vm/app

vm shared >"$work/shared.yaml"
check "server-side apply creates" 'serverside-applied' "$K" apply --server-side --field-manager=one -f "$work/shared.yaml"
vm shared 8 >"$work/shared2.yaml"
refuse "another manager conflicts" 'conflict.*"one"' "$K" apply --server-side --field-manager=two -f "$work/shared2.yaml"
check "and may take over" 'serverside-applied' "$K" apply --server-side --field-manager=two --force-conflicts -f "$work/shared2.yaml"
equal "the field is taken over" 8 k get vm shared -o jsonpath='{.spec.cpu.count}'
show_managed=; modern && show_managed=--show-managed-fields
check "both are known" 'manager: two' "$K" get vm shared -o yaml $show_managed

printf '#!/bin/sh\nsed -i "s/count: 4/count: 6/" "$1"\n' >"$work/editor"
chmod +x "$work/editor"
check "edit" 'app edited' env EDITOR="$work/editor" "$K" edit vm app
equal "edit changed a field" 6 k get vm app -o jsonpath='{.spec.cpu.count}'
printf '#!/bin/sh\ntrue\n' >"$work/editor"
check "edit nothing" 'Edit cancelled' env EDITOR="$work/editor" "$K" edit vm app
check "merge patch" 'app patched' "$K" patch vm app --type=merge -p '{"spec":{"powerState":"PoweredOff"}}'
check "wait for its effect" 'condition met' "$K" wait --for=condition=Ready=False vm/app --timeout=10s
check "JSON patch" 'app patched' "$K" patch vm app --type=json -p '[{"op":"replace","path":"/spec/memory/size","value":"2Gi"}]'
refuse "JSON patch whose test fails" 'test|Invalid|invalid' "$K" patch vm app --type=json -p '[{"op":"test","path":"/spec/memory/size","value":"9Gi"}]'
check "strategic merge patch of a core kind" 'patched' "$K" patch ns team --type=strategic -p '{"metadata":{"labels":{"cost":"42"}}}'
refuse "a patch that makes it invalid" 'spec.memory.size' "$K" patch vm app --type=merge -p '{"spec":{"memory":{"size":"1"}}}'
equal "patches changed a field" 2Gi k get vm app -o jsonpath='{.spec.memory.size}'
check "label" 'labeled' "$K" label vm app owner=me
refuse "label is not overwritten" 'already has a value' "$K" label vm app owner=you
check "label away" 'labeled|unlabeled' "$K" label vm app owner-
check "annotate" 'annotated' "$K" annotate vm --all note='hello world'
equal "annotated" 'hello world' k get vm web -o jsonpath='{.metadata.annotations.note}'
k get vm app -o json | sed 's/"count": 6/"count": 3/' >"$work/replace.json"
check "replace" 'replaced' "$K" replace -f "$work/replace.json"
refuse "replace what has changed since" 'Conflict|object has been modified' "$K" replace -f "$work/replace.json"
if modern; then
    check "patch the status" 'patched' "$K" patch vm app --subresource=status --type=merge -p '{"status":{"hostName":"here"}}'
    equal "status is written apart" here k get vm app --subresource=status -o jsonpath='{.status.hostName}'
fi

# -- describe, events -------------------------------------------------------------------------------------------------
check "describe" 'Power State: +PoweredOn' "$K" describe vm web
check "describe shows events" 'Running +.*stand-in|stand-in.*the power state' "$K" describe vm web
check "events" 'Running' "$K" get events
check "events of one object" 'web' "$K" get events --field-selector involvedObject.name=web,type=Normal
if modern; then
    check "the events command" 'VirtualMachine/web' "$K" events --for vm/web
fi
check "describe a namespace" 'Status: +Active' "$K" describe ns default

# -- watch ------------------------------------------------------------------------------------------------------------
"$K" get vm web -w --output-watch-events >"$work/watch" 2>&1 &
watcher=$!
"$K" get vm web -w -o json >"$work/watch-json" 2>&1 &
json_watcher=$!
for _ in $(seq 100); do grep -q ADDED "$work/watch" && [ -s "$work/watch-json" ] && break; sleep 0.1; done
k patch vm web --type=merge -p '{"spec":{"powerState":"PoweredOff"}}' >/dev/null
for _ in $(seq 100); do grep -q 'MODIFIED.*PoweredOff' "$work/watch" && grep -q '"powerState": "PoweredOff"' "$work/watch-json" && break; sleep 0.1; done
kill "$watcher" "$json_watcher"
wait "$watcher" "$json_watcher" 2>/dev/null || true
cp "$work/watch" "$work/output"
grep -Eq '^EVENT +NAME' "$work/watch" && grep -Eq '^ADDED +web +PoweredOn' "$work/watch" || fail "get -w"
grep -Eq '^MODIFIED +web +PoweredOff' "$work/watch" || fail "get -w shows no change"
[ "$(grep -c '^EVENT' "$work/watch")" = 1 ] || fail "get -w repeats its header"
ok "get -w"
grep -q '"powerState": "PoweredOff"' "$work/watch-json" || fail "get -w -o json"
ok "get -w -o json"

# -- who may do what --------------------------------------------------------------------------------------------------
can() { KUBECONFIG=$work/$1 k auth can-i "${@:3}" >"$work/output" 2>/dev/null || true; [ "$(cat "$work/output")" = "$2" ] || fail "can-i $*"; ok "$1 ${*:3}: $2"; }
can admin yes '*' '*'
can admin yes delete nodes --all-namespaces
can operator yes create vm
can operator yes get vm --subresource=console
can operator no create vm -n team
can operator no get secrets
can operator yes create secrets
can operator no create rolebindings
can operator no list hosts
can viewer yes list vm --all-namespaces
can viewer yes get /metrics
can viewer no create vm
can viewer no get secrets
can viewer no get vm --subresource=console
can viewer yes get vm --subresource=log
can stranger no list vm
check "can-i --list" 'virtualmachines.carmel.dev' env KUBECONFIG="$work/operator" "$K" auth can-i --list
if modern; then check "whoami" 'operator' env KUBECONFIG="$work/operator" "$K" auth whoami; fi
check "an operator creates" 'created' env KUBECONFIG="$work/operator" "$K" create -f - <<<"$(vm operated)"
refuse "an operator reads no secret" 'forbidden.*cannot get resource "secrets"' env KUBECONFIG="$work/operator" "$K" get secret keys
refuse "an operator binds nobody" 'forbidden' env KUBECONFIG="$work/operator" "$K" create rolebinding me --clusterrole=admin --user=operator
check "a viewer reads" '^web' env KUBECONFIG="$work/viewer" "$K" get vm
refuse "a viewer deletes nothing" 'forbidden' env KUBECONFIG="$work/viewer" "$K" delete vm web
refuse "a stranger reads nothing" 'forbidden' env KUBECONFIG="$work/stranger" "$K" get vm
check "a role is given" 'created' "$K" create rolebinding stranger-views --clusterrole=viewer --user=stranger
check "and counts at once" '^web' env KUBECONFIG="$work/stranger" "$K" get vm
check "a role is taken" 'deleted' "$K" delete rolebinding stranger-views
refuse "and that counts at once" 'forbidden' env KUBECONFIG="$work/stranger" "$K" get vm
check "a token is taken" 'deleted' "$K" -n carmel-system delete secret token-viewer
refuse "and opens nothing more" 'Unauthorized|must be logged in' env KUBECONFIG="$work/viewer" "$K" get vm

# -- delete -----------------------------------------------------------------------------------------------------------
check "delete on trial" 'deleted.*\(server dry run\)' "$K" delete vm web --dry-run=server
check "delete and wait" 'deleted' "$K" delete vm web --wait
refuse "it is gone" 'NotFound' "$K" get vm web
k patch vm app --type=merge -p '{"metadata":{"finalizers":["carmel.dev/test"]}}' >/dev/null
check "delete what is held back" 'deleted' "$K" delete vm app --wait=false
equal "it is marked" true k get vm app -o go-template='{{if .metadata.deletionTimestamp}}true{{end}}'
"$K" wait -v=6 --for=delete vm/app --timeout=20s >"$work/waited" 2>&1 &
waiter=$!
# It must have found the object before that goes.
for _ in $(seq 200); do
  if grep -q 'virtualmachines.* 200 OK\|virtualmachines.*status="200 OK"' "$work/waited"; then break; fi
  sleep 0.1
done
k patch vm app --type=json -p '[{"op":"remove","path":"/metadata/finalizers"}]' >/dev/null
wait "$waiter" || { cp "$work/waited" "$work/output"; fail "wait --for=delete"; }
ok "wait --for=delete"
check "delete by label" 'deleted' "$K" delete vm -l app=shared
check "delete all" 'deleted' "$K" delete vm --all
check "delete from a file, twice" '^$|^ *$' bash -c "'$K' delete -f '$work/app.yaml' --ignore-not-found; echo"
check "delete the collection" 'VirtualMachineList' "$K" delete --raw /apis/carmel.dev/v1alpha1/namespaces/extra/virtualmachines
check "delete a namespace" 'deleted' "$K" delete ns extra --timeout=20s
refuse "the namespace default stays" 'may not be deleted' "$K" delete ns default
echo "1..$count"
