/** What a signed checkpoint tells beside where the streams ended. */

export interface Handed {
  readonly successor: { readonly name: string; readonly id: string } | null;
}

/** The words for a checkpoint that its key was retired with; null for every other one. */
export function retirement({ successor }: Handed): string | null {
  return successor ? `key retired, successor ${successor.name} (${successor.id})` : null;
}
