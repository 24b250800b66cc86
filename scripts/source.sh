#!/bin/sh
# Stand-ins for the reference stack's sources, with invented readings; only `system` measures. For busybox, no other programs.
#
# usage: source.sh SOURCE_ID
#   MODE=            write status, meta and readings once; network_camera: until it is told to stop
#   MODE=scan        co2: write scan:co2
#   MODE=discover    network_camera: write scan:network_camera
# shellcheck disable=SC3045 # busybox has read -t
set -eu
# Under `nc -e` the connection to Redis is our stdin and stdout.
[ -n "${CONNECTED:-}" ] || CONNECTED=1 exec nc "${REDIS_HOST:-redis}" "${REDIS_PORT:-6379}" -e sh "$0" "$@"

id=$1
cr=$(printf '\r')
crlf="$cr
"

log() { echo "$id: $*" >&2; }
# One write for each command: Redis answers several small ones 40 ms later. Words are ASCII: lengths count bytes.
send() {
  message="*$#$crlf"
  for word; do message="$message\$${#word}$crlf$word$crlf"; done
  printf %s "$message"
}
# Reads one reply that is no list into $reply; a key that is not there reads as nothing.
receive() {
  IFS= read -r reply || { log "redis closed the connection"; exit 1; }
  reply=${reply%"$cr"}
  case $reply in
    '$-1' | '_') reply= ;;
    '$'*) IFS= read -r reply; reply=${reply%"$cr"} ;;
    -*) log "redis: ${reply%%. *}"; exit 1 ;;
  esac
}
ask() { send "$@"; receive; }
now() {
  ask TIME
  receive; seconds=$reply
  receive; now=$(printf '%s.%06d' "$seconds" "$reply")
}
# count KEY: a number out of the JSON object in $reply, 0 where it has none.
count() {
  count=${reply#*\""$1"\": }
  count=${count%%[!0-9]*}
  count=${count:-0}
}
status() {
  ask SET "status:$id" "{\"source_id\": \"$id\", \"last_poll\": $now, \"last_success\": $now, \"last_error\": null, \"poll_count\": $polls, \"error_count\": $errors}" EX 120
}
meta() {
  ask SET "meta:$id" "{\"source_id\": \"$id\", \"name\": \"$1\", \"description\": \"$2\", \"refresh_interval\": ${REFRESH_INTERVAL:-30}, \"enabled\": true}"
}
# reading SENSOR VALUE UNIT: value and unit as JSON.
reading() {
  ask SET "source:$id:$1" "{\"value\": $2, \"unit\": $3, \"timestamp\": $now}" EX 60
}
publish() {
  ask PUBLISH "data:$id" "{\"source_id\": \"$id\", \"timestamp\": $now}"
}
scan() {
  sleep "${SCAN_SECONDS:-2}"
  ask SET "$1" "$2" EX 60
  log "scan written"
}

tailscale() {
  meta Tailscale "Devices of the tailnet"
  reading connected true null
  reading device_count 5 null
}
pihole() {
  meta Pi-hole "Queries that were answered and blocked"
  reading queries_today $((10000 + polls)) null
  reading ads_blocked_today $((1500 + polls / 7)) null
  reading ads_percentage_today 15.2 '"%"'
}
system() {
  read -r load _ </proc/loadavg
  read -r uptime _ </proc/uptime
  total=1 available=0
  while read -r name kilobytes _; do
    case $name in MemTotal:) total=$kilobytes ;; MemAvailable:) available=$kilobytes; break ;; esac
  done </proc/meminfo
  meta System "Load and memory of this machine"
  reading load "$load" null
  reading memory_percent $((100 - 100 * available / total)) '"%"'
  reading uptime "${uptime%.*}" '"s"'
}
co2() {
  meta CO2 "Air in the office"
  reading office:co2 $((600 + polls % 50)) '"ppm"'
  reading office:temperature 21.5 '"\u00b0C"'
  reading office:humidity 44 '"%"'
}
weather() {
  meta Weather "Weather at the configured place"
  reading temperature 12.5 '"\u00b0C"'
  reading condition '"Partly cloudy"' null
}
network_camera() {
  meta "Network camera" "A stream that ends when it is told to"
  reading streaming true null
}

poll() {
  now
  ask GET "status:$id"
  count poll_count; polls=$((count + 1))
  count error_count; errors=$count
  "$id"
  status
  publish
}

# Streams until a stop arrives; the status lives 120 s, so it is written anew each 30 s. Ends with 1 when Redis goes away.
stream() {
  trap 'CONNECTED="" sh "$0" "$id" ended "stopped by a signal"; exit 0' TERM INT
  log "stream started"
  send SUBSCRIBE "cmd:$id"
  while :; do
    if IFS= read -r -t 30 line; then
      case $line in *'"action"'*'"stop"'*) break ;; esac
    else
      CONNECTED="" sh "$0" "$id" poll
      send PING
    fi
  done
  CONNECTED="" sh "$0" "$id" ended "stopped by command"
}

case ${2:-${MODE:-run}}:$id in
  ended:*)
    now
    ask PUBLISH stream:ended "{\"source_id\": \"$id\", \"reason\": \"$3\", \"timestamp\": $now}"
    log "stream ended: $3"
    ;;
  scan:co2)
    scan scan:co2 '[{"name": "Aranet4 1A2B3", "mac": "AA:BB:CC:DD:EE:01", "rssi": -60}, {"name": "Aranet4 4C5D6", "mac": "AA:BB:CC:DD:EE:02", "rssi": -74}]'
    ;;
  discover:network_camera)
    scan scan:network_camera '[{"name": "Front door", "host": "192.0.2.10", "port": 554}]'
    ;;
  run:network_camera) poll; stream ;;
  poll:* | run:*) poll; log "poll $polls written" ;;
  *) log "unknown mode '$MODE'"; exit 2 ;;
esac
