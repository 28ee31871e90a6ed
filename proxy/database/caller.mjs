// Who may use the bridge: its port has no password, so only this account, root, and nobody's browser.
import { readFileSync } from 'node:fs'
import { endianness } from 'node:os'

const ESTABLISHED = '01'

/** An IPv4 address and a port as they stand in /proc/net/tcp. */
function entry(address, port) {
  const bytes = address.split('.').map(Number)
  if (endianness() === 'LE') bytes.reverse()
  const hex = (number, digits) => number.toString(16).toUpperCase().padStart(digits, '0')
  return `${bytes.map((byte) => hex(byte, 2)).join('')}:${hex(port, 4)}`
}

/**
 * Whether the other end of a loopback connection belongs to this account or to root (Linux).
 *
 * `client` and `server` are {address, port}. An end that its owner has closed already is nobody's, though the
 * kernel lists it as root's, without an inode: who sends and hangs up at once is not let in by that.
 */
export function sameAccount(client, server) {
  const [theirs, ours] = [entry(client.address, client.port), entry(server.address, server.port)]
  const mapped = '0000000000000000FFFF0000' // an IPv4 address in an IPv6 socket
  for (const [table, prefix] of [['/proc/net/tcp', ''], ['/proc/net/tcp6', mapped]]) {
    let text
    try {
      text = readFileSync(table, 'utf8')
    } catch {
      continue // no IPv6
    }
    for (const line of text.split('\n')) {
      const [, local, remote, state, , , , uid, , inode] = line.trim().split(/\s+/)
      if (local === prefix + theirs && remote === prefix + ours)
        return state === ESTABLISHED && inode !== '0' && (Number(uid) === process.getuid() || uid === '0')
    }
  }
  return false
}

/** Whether a request comes from the client library: a page in a browser sends Origin, or a Host of its own. */
export function fromClient(headers, serverPort) {
  return !headers.origin && headers.host === `localhost:${serverPort}`
}
