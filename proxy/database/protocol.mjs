// From the GraphQL that prisma-client-py writes to the JSON protocol that Prisma's engine speaks, and back. Pure.

const ACTIONS = [
  'findUniqueOrThrow', 'findUnique', 'findFirstOrThrow', 'findFirst', 'findMany',
  'createManyAndReturn', 'createMany', 'createOne', 'updateMany', 'updateOne',
  'upsertOne', 'deleteMany', 'deleteOne', 'aggregate', 'groupBy',
]

/** Operators on Json fields whose operands are no Json themselves. */
const NOT_JSON = new Set(['path', 'string_contains', 'string_starts_with', 'string_ends_with', 'mode'])

/** Translates queries about `models` (see schema.mjs); `graphql` is the npm package of that name. */
export class Translator {
  constructor(models, graphql) {
    this.models = models
    this.parse = graphql.parse
    this.kind = graphql.Kind
  }

  /** One GraphQL operation as a query of the JSON protocol. Throws on what it does not know. */
  query(source) {
    const operation = this.parse(source, { noLocation: true }).definitions[0]
    const field = operation.selectionSet.selections[0]
    const { action, modelName } = this.#action(field.name.value)
    return { modelName, action, query: this.#selection(field, modelName) }
  }

  #action(name) {
    if (name === 'queryRaw' || name === 'executeRaw') return { action: name }
    const orThrow = /^(findFirst|findUnique)(\w+)OrThrow$/.exec(name) // the model stands in the middle
    if (orThrow && this.models[orThrow[2]]) return { action: `${orThrow[1]}OrThrow`, modelName: orThrow[2] }
    for (const action of ACTIONS) {
      const modelName = name.slice(action.length)
      if (name.startsWith(action) && this.models[modelName]) return { action, modelName }
    }
    throw new Error(`unknown operation ${name}`)
  }

  #selection(field, model) {
    const args = {}
    for (const argument of field.arguments ?? []) args[argument.name.value] = this.#value(argument.value, model, false)
    const selection = {}
    for (const item of field.selectionSet?.selections ?? []) {
      const name = item.name.value
      const type = this.models[model]?.[name]
      const nested = item.selectionSet || item.arguments?.length
      selection[name] = nested ? this.#selection(item, type in this.models ? type : null) : true
    }
    return { arguments: args, selection }
  }

  // `model`: the model whose fields the keys of an object name; `json`: we are below a Json field.
  #value(node, model, json) {
    const kind = this.kind
    switch (node.kind) {
      case kind.STRING:
        return json ? { $type: 'Json', value: node.value } : node.value
      case kind.ENUM:
        return node.value
      case kind.BOOLEAN:
        return node.value
      case kind.NULL:
        return json ? { $type: 'Enum', value: 'DbNull' } : null
      case kind.FLOAT:
        return Number(node.value)
      case kind.INT: {
        const number = Number(node.value)
        return Number.isSafeInteger(number) ? number : { $type: 'BigInt', value: node.value }
      }
      case kind.LIST:
        return node.values.map((item) => this.#value(item, model, json))
      case kind.OBJECT:
        return Object.fromEntries(node.fields.map((f) => [f.name.value, this.#member(f, model, json)]))
      default:
        throw new Error(`unsupported GraphQL value ${node.kind}`)
    }
  }

  #member(field, model, json) {
    const key = field.name.value
    if (json) return this.#value(field.value, null, !NOT_JSON.has(key))
    const type = model ? this.models[model][key] : undefined
    if (type === 'Json') return this.#value(field.value, null, true)
    if (type) return this.#value(field.value, this.models[type] ? type : null, false)
    return this.#value(field.value, model, false) // an operator: where, AND, create, set, ...
  }
}

/** The engine's answer to one query as prisma-client-py expects it. */
export function answer(response) {
  const [action, result] = Object.entries(response.data)[0]
  return { data: { result: action === 'queryRaw' ? rows(result) : untag(result) } }
}

// {"$type": "DateTime", "value": x} -> x
function untag(value) {
  if (Array.isArray(value)) return value.map(untag)
  if (value && typeof value === 'object') {
    if ('$type' in value) return value.value
    for (const key in value) value[key] = untag(value[key])
  }
  return value
}

// prisma-client-py 0.11 wants raw rows as objects whose values carry their types.
function rows({ columns, types, rows }) {
  const typed = (type, value) => {
    if (value === null) return { prisma__type: 'null', prisma__value: null }
    if (!type.endsWith('-array')) return { prisma__type: type, prisma__value: value }
    return { prisma__type: 'array', prisma__value: value.map((item) => typed(type.slice(0, -6), item)) }
  }
  return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, typed(types[i], row[i])])))
}
