# shellcheck shell=bash
# What the demos share: a program of ours that runs, the namespaces and processes around it, which go
# with the script however it ends, and what its tables say. To be sourced with the program's name in
# $program_name. The option --ci is read here, before anything speaks in colours.
# shellcheck disable=SC2034,SC2154 # the scripts set the name, and use the rest

ci=''
for argument in "$@"; do
    if [[ $argument == --ci ]]; then
        ci=1
        export NO_COLOR=1 CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never
    fi
done
. scripts/lib/common.sh

namespaces=() # what clean_up has to take away
processes=()  # every process is also its own index
program=''    # the program's process while it should run
scratch=$(mktemp -d)
log=$scratch/program.log
tables=$scratch/program.tables

# shellcheck disable=SC2317 # called by the trap
clean_up() {
    local status=$?
    trap '' INT TERM HUP
    set +e
    if ((status != 0 && status < 128)) && [[ -s $log ]]; then
        echo "$program_name's log:" >&2
        tail -n 40 "$log" | indent >&2
    fi
    take_away
    rm -rf "$scratch"
}

# shellcheck disable=SC2317 # called by the traps
interrupted() {
    echo "${0##*/}: interrupted; everything is taken away again" >&2
    exit "$1"
}
trap clean_up EXIT
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP

# Ends all processes, then removes the namespaces.
take_away() {
    local pid namespace
    for pid in "${processes[@]}"; do
        end "$pid"
    done
    for namespace in "${namespaces[@]}"; do
        [[ ! -e /run/netns/$namespace ]] || ip netns delete "$namespace"
    done
    processes=() namespaces=()
}

# launch COMMAND...: starts a process that ends with this script, and leaves its number in $pid.
# It gets a session of its own, so that Ctrl-C reaches this script alone, which ends it in order.
launch() {
    setsid setpriv --pdeathsig KILL env --default-signal=INT,QUIT "$@" &
    pid=$!
    processes[pid]=$pid
}

# run COMMAND...: waits for a command that was launched, and not for a foreground process, during
# which bash runs no trap. Whoever redirects its stderr also silences what the traps have to say.
run() {
    local status=0
    launch "$@"
    wait "$pid" || status=$?
    unset 'processes[pid]'
    return "$status"
}

alive() {
    kill -0 "$1" 2>/dev/null
}

# end PROCESS: with all that it started, and by force if it takes its time.
end() {
    if alive "$1"; then
        kill -TERM -- "-$1" 2>/dev/null || kill -TERM "$1" 2>/dev/null || true
        wait_until 3 not alive "$1" || kill -KILL -- "-$1" 2>/dev/null || true
    fi
    wait "$1" 2>/dev/null || true
}

not() {
    ! "$@"
}

# wait_until SECONDS COMMAND...: until the command succeeds; fails when it has not by then.
wait_until() {
    local deadline=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

indent() {
    sed '/./s/^/    /'
}

# note TEXT: what came of a step.
note() {
    printf '    %s\n' "$*"
}

# build TARGET...: builds the program, which is this target of cargo's, and leaves its path in $binary.
build() {
    say "building $program_name in release mode (minutes the first time, nothing the next)"
    run cargo build --release "$@" --message-format json-render-diagnostics >"$scratch/build" ||
        die "$program_name does not build (cargo's words are above)"
    binary=$(sed -n 's/.*"name":"'"$program_name"'".*"executable":"\([^"]*\)".*/\1/p' "$scratch/build")
    [[ -x $binary ]] || die "cargo built $program_name, but does not say where it is"
}

# start_program WHAT COMMAND...: starts the program and waits until its ports are up.
start_program() {
    say "$1"
    shift
    # DPDK makes a directory at run time, even if it puts nothing there.
    RUNTIME_DIRECTORY=$scratch launch "$@" >"$tables" 2>"$log"
    program=$pid
    # The line in the log may have been switched off by RUST_LOG; a table comes in any case.
    wait_until 20 program_settled || die "$program_name is not up after 20 s"
    alive "$program" || die "$program_name did not start"
}

program_settled() {
    grep -qs "$program_name runs on" "$log" || grep -qs '^balance:' "$tables" || not alive "$program"
}

# start_router WORKERS INTERFACE...: starts the program with $config, in the namespace $router. For each of
# the kernel's interfaces there, it gets the other end as a port: net_tap0, net_tap1 and so on.
start_router() {
    local memory remark worker lcores='' ports=() interface
    find_memory
    for ((worker = 0; worker < $1; worker++)); do
        lcores+=${lcores:+,}"$worker@($(allowed_cpus))"
    done
    for interface in "${@:2}"; do
        ports+=("--vdev=net_tap${#ports[@]},iface=$interface")
    done
    add_namespace "$router"
    start_program "starting $program_name as a router; workers: $1, ports: $(($# - 1)) ($remark)" \
        ip netns exec "$router" "$binary" "${memory[@]}" --no-pci --no-telemetry --lcores "$lcores" \
        "${ports[@]}" -- --config "$config" --stats-interval 1
}

# Stops the program as Ctrl-C would, and shows its final table.
stop_program() {
    say "stopping $program_name with SIGINT; its final table:"
    alive "$program" || die "$program_name has ended before it was told to"
    kill -INT "$program"
    await_end 10
}

# await_end SECONDS: until the program that was told to has ended; shows its final table.
await_end() {
    wait_until "$1" not alive "$program" || die "$program_name does not stop"
    local status=0
    wait "$program" || status=$?
    unset 'processes[program]'
    program=''
    ((status == 0)) || die "$program_name ended with the exit code $status"
    last_table | indent
    ! last_table | grep -q unaccounted || die "the balance does not close: packets are unaccounted for"
}

# fail WHY: for what goes wrong while the program runs. If it does not run any more, that is why.
fail() {
    alive "$program" || die "$program_name has ended by itself"
    die "$@"
}

# The last table that the program has printed as a whole.
last_table() {
    awk '/^port +received/ { table = "" } { table = table $0 "\n" } /^balance:/ { whole = table }
        END { printf "%s", whole }' "$tables"
}

# Waits for a table that tells of this moment.
fresh_table() {
    local begun
    begun=$(grep -c '^--- ' "$tables") || true
    wait_until 20 more_tables_than "$begun" || fail "$program_name prints no more tables"
}

more_tables_than() {
    (($(grep -c '^balance:' "$tables") > $1))
}

# in_table NAME: the first number in a row of the last table; 0 without that row.
in_table() {
    last_table | awk -v name="$1" '$1 == name { value = $2 } END { print value + 0 }'
}

# sessions_of FUNCTION: what it remembers, by the last table.
sessions_of() {
    last_table | awk -v name="$1" '$1 == "function" { within = 1 } !NF { within = 0 }
        within && $1 == name { sessions = $NF } END { print sessions }'
}

# Leaves in $memory what tells DPDK where its memory comes from, and in $remark how to speak of that.
find_memory() {
    if hugepages_are_free; then
        memory=(--in-memory --iova-mode=va) remark="on hugepages"
    else
        memory=(--no-huge --no-shconf -m 256) remark="without hugepages: none are free"
    fi
}

# At least 256 MiB of hugepages of one size.
hugepages_are_free() {
    local directory size
    for directory in /sys/kernel/mm/hugepages/hugepages-*kB; do
        [[ -e $directory/free_hugepages ]] || continue
        size=${directory##*-}
        (($(<"$directory/free_hugepages") * ${size%kB} < 256 * 1024)) || return 0
    done
    return 1
}

# The CPUs that this process may use.
allowed_cpus() {
    sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status
}

# Leaves in $why what root may not do here, or nothing.
find_obstacle() {
    why=''
    if ((EUID != 0)); then
        why="there is no root"
    elif ! unshare --net --mount true 2>/dev/null; then
        why="root may not make network namespaces here"
    elif ! (: <>/dev/net/tun) 2>/dev/null; then
        why="/dev/net/tun cannot be opened here"
    fi
}

# in_namespace NAME COMMAND...
in_namespace() {
    run ip netns exec "$@"
}

# fetch NAMESPACE URL ARGUMENT...: curl without anybody's settings and proxies.
fetch() {
    in_namespace "$1" curl -q --noproxy '*' --silent --show-error --fail "${@:3}" "$2"
}

# add_namespace NAME
add_namespace() {
    namespaces+=("$1") # first, so that it goes whenever a signal comes
    ip netns add "$1"
    ip -n "$1" link set lo up
}

# connect INTERFACE NAMESPACE: moves an interface there from the program's own.
connect() {
    nsenter --target "$program" --net ip link set "$1" netns "$2" || fail "$1 cannot be moved"
}

# connect_to_router INTERFACE NAMESPACE: moves it there, for a host or for a bridge.
connect_to_router() {
    connect "$1" "$2"
    # A tap's own MAC address is the port's, so the router's.
    ip -n "$2" link set "$1" address 02:00:00:00:00:aa
}

# give_addresses NAMESPACE INTERFACE ADDRESS [ADDRESS6]
give_addresses() {
    ip -n "$1" address add "$3/24" dev "$2"
    # Where IPv6 is switched off, what goes over it is left out.
    local off=/proc/sys/net/ipv6/conf/$2/disable_ipv6
    if [[ -n ${4:-} && $(ip netns exec "$1" cat "$off" 2>/dev/null) == 0 ]]; then
        ip -n "$1" address add "$4/64" dev "$2" nodad
    fi
}

# has_address NAMESPACE ADDRESS6
has_address() {
    [[ -n $(ip -n "$1" -6 address show to "$2") ]]
}

# add_host NAMESPACE INTERFACE ADDRESS ROUTER [ADDRESS6 ROUTER6]: a host of whom nobody knows yet.
add_host() {
    give_addresses "$1" "$2" "$3" "${5:-}"
    ip -n "$1" link set "$2" up
    ip -n "$1" route add default via "$4"
    if [[ -n ${5:-} ]] && has_address "$1" "$5"; then
        ip -n "$1" route add default via "$6"
    fi
    ! ip -n "$1" neigh show nud all | grep -qv NOARP || fail "$1 knows neighbours before it has said a word"
}

# make_pages MEGABYTES: what the servers have, a page and a file.
make_pages() {
    mkdir "$scratch/www"
    echo "a page that came through $program_name" >"$scratch/www/index.html"
    head -c $(($1 << 20)) /dev/urandom >"$scratch/www/file"
}

# url ADDRESS PORT
url() {
    local host=$1
    [[ $host != *:* ]] || host="[$host]"
    echo "http://$host:$2"
}

# serve NAMESPACE ADDRESS PORT: starts an HTTP server and waits until it answers in its own namespace.
serve() {
    local http
    launch ip netns exec "$1" python3 -m http.server --bind "$2" --directory "$scratch/www" "$3" \
        >>"$scratch/http.log" 2>&1
    http=$pid
    wait_until 15 answers_or_ends "$1" "$(url "$2" "$3")" "$http" ||
        fail "the HTTP server on $2 port $3 does not answer"
    alive "$http" || {
        tail -n 1 "$scratch/http.log" | indent >&2
        fail "there is no HTTP server on $2 port $3"
    }
}

# answers_or_ends NAMESPACE URL PROCESS
answers_or_ends() {
    not alive "$3" || fetch "$1" "$2/" --output /dev/null --max-time 2 --stderr /dev/null
}

# get_page NAMESPACE URL [CURL'S ARGUMENT]...
get_page() {
    fetch "$1" "$2/" --max-time 5 "${@:3}" --output "$scratch/page" || fail "the page does not come through"
    indent <"$scratch/page"
    cmp -s "$scratch/www/index.html" "$scratch/page" || fail "this is not the server's page"
}

# get_file NAMESPACE URL
get_file() {
    fetch "$1" "$2/file" --speed-limit 100000 --speed-time 10 --output "$scratch/file" \
        --write-out '%{speed_download} %{time_total}\n' >"$scratch/speed" || fail "the file does not come through"
    local speed seconds
    read -r speed seconds <"$scratch/speed"
    compare_files "$scratch/www/file" "$scratch/file" "$((${speed%.*} / 1000000)) MB/s, ${seconds%????} s"
}

# compare_files FILE FILE REMARK: one that was sent, and as it came through.
compare_files() {
    local sums
    sums=$(sha256sum "$1" "$2" | cut -d ' ' -f 1 | uniq)
    [[ $sums != *$'\n'* ]] || fail "the file came through damaged"
    note "$3; SHA-256 on both sides ${sums:0:16}..."
}

ping_through() {
    in_namespace "$@" >"$scratch/ping" || fail "ping does not come through"
    sed -n '/packets transmitted\|^rtt/p' "$scratch/ping" | indent
}

# ping_all NAMESPACE ADDRESS ARGUMENT...: every request has to be answered.
ping_all() {
    ping_through "$1" ping -n -q -c 3 -i 0.2 -W 2 "${@:3}" "$2"
    grep -q ' 0% packet loss' "$scratch/ping" || fail "of three requests not all are answered"
}

# trace NAMESPACE ADDRESS HOPS ARGUMENT...: these hops, and then the address itself.
trace() {
    local hops
    in_namespace "$1" traceroute -n -q 1 -N 1 -w 2 -m 5 "${@:4}" "$2" >"$scratch/trace" || fail "traceroute fails"
    sed -n 's/^ *[0-9]/&/p' "$scratch/trace" | indent
    hops=$(awk '$1 ~ /^[0-9]+$/ { print $2 }' "$scratch/trace" | paste -s -d ' ')
    [[ $hops == "$3 $2" ]] || fail "the hops should be $3 $2"
}

# path_mtu NAMESPACE ADDRESS: what a host has learned, or nothing.
path_mtu() {
    ip -n "$1" route get "$2" | sed -n 's/.* mtu \([0-9]*\).*/\1/p'
}

# counted NAMESPACE NAME: one of the kernel's counters.
counted() {
    ip netns exec "$1" nstat -asz "$2" | awk -v name="$2" '$1 == name { print $2 }'
}
