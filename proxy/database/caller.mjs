// Who may use the bridge: its port has no password, so only this account, root, and nobody's browser.
import { readFileSync } from 'node:fs'

const TABLES = ['/proc/net/tcp', '/proc/net/tcp6']
const port = (number) => `:${number.toString(16).toUpperCase().padStart(4, '0')}`

/** Whether the other end of a loopback connection to `serverPort` belongs to this account or to root (Linux). */
export function sameAccount(clientPort, serverPort) {
  for (const table of TABLES) {
    let text
    try {
      text = readFileSync(table, 'utf8')
    } catch {
      continue // no IPv6
    }
    for (const line of text.split('\n')) {
      const [, local, remote, , , , , uid] = line.trim().split(/\s+/)
      if (local?.endsWith(port(clientPort)) && remote?.endsWith(port(serverPort)))
        return Number(uid) === process.getuid() || uid === '0'
    }
  }
  return false
}

/** Whether a request comes from the client library: a page in a browser sends Origin, or a Host of its own. */
export function fromClient(headers, serverPort) {
  return !headers.origin && headers.host === `localhost:${serverPort}`
}
