// What the bridge must know of the data model: the type of each field. Read from schema.prisma line by line.

/** Model name -> field name -> type name, of the text of a schema.prisma. */
export function readModels(schema) {
  const models = {}
  let current = null
  for (const raw of schema.split('\n')) {
    const line = raw.replace(/\/\/.*$/, '').trim()
    const head = /^model\s+(\w+)\s*\{/.exec(line)
    if (head) current = models[head[1]] = {}
    else if (line === '}') current = null
    else if (current && !line.startsWith('@@')) {
      const field = /^(\w+)\s+(\w+)/.exec(line)
      if (field) current[field[1]] = field[2]
    }
  }
  return models
}

/** The database's address: what the client overrides, else what the schema's datasource names. */
export function databaseUrl(schema, env) {
  const overridden = env.OVERWRITE_DATASOURCES
  const url = overridden && JSON.parse(overridden).find((source) => source.url)?.url
  if (url) return url
  const source = /datasource\s+\w+\s*\{([^}]*)\}/.exec(schema)[1]
  const name = /url\s*=\s*env\("(\w+)"\)/.exec(source)
  return name ? env[name[1]] : /url\s*=\s*"([^"]*)"/.exec(source)[1]
}
