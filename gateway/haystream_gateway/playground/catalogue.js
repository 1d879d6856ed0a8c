// The pipelines that there are, and all that is shown of the one that is chosen.

import { describePipeline, listPipelines } from "./api.js";
import { at } from "./elements.js";
import { Graph } from "./graph.js";
import { Picker } from "./picker.js";

const AGAIN_MILLISECONDS = 2000; // while the service is away, or loads

const CANCELLATION = {
  CANCELLATION_IMMEDIATE: "stops at once",
  CANCELLATION_NEXT_CHUNK: "stops at the model’s next words",
  CANCELLATION_NONE: "cannot be stopped before its end",
};

export class Catalogue {
  /** `onState` is told null where all is well, and the error where it is not. */
  constructor(conversation, settings, onState) {
    Object.assign(this, { conversation, settings, onState });
    this.pipelines = [];
    this.picker = new Picker((name) => this.choose(name));
  }

  /** Look what there is now, and again while that is about to change. */
  async refresh() {
    clearTimeout(this.timer);
    let isSettled = false;
    try {
      const { pipelines, default_pipeline: preferred } = await listPipelines();
      const isThere = pipelines.some(({ name, ready }) => ready && name === this.conversation.pipeline);
      if (!isThere) this.conversation.pipeline = preferred;
      this.pipelines = pipelines;
      this.picker.show(pipelines, this.conversation.pipeline);
      await this.describe();
      isSettled = pipelines.every(({ ready, error }) => ready || error);
      this.onState(null);
    } catch (error) {
      isSettled = error.status === 401; // until somebody says who asks
      this.onState(error);
    }
    clearTimeout(this.timer);
    if (!isSettled) this.timer = setTimeout(() => this.refresh(), AGAIN_MILLISECONDS);
  }

  async choose(name) {
    this.conversation.pipeline = name;
    this.conversation.save();
    try {
      await this.describe();
    } catch (error) {
      this.onState(error);
    }
  }

  async describe() {
    const name = this.conversation.pipeline;
    if (!name) return;
    at("chosen").textContent = name;
    at("welcome-name").textContent = name;
    at("description").textContent = this.pipelines.find((pipeline) => pipeline.name === name)?.description ?? "";
    const described = await describePipeline(name);
    const text = JSON.stringify(described);
    if (name !== this.conversation.pipeline || text === this.shown) return; // another was chosen meanwhile; or the same
    this.shown = text;
    this.show(name, described);
  }

  show(name, described) {
    const { graph, inputs_schema: schema, streaming_components: streaming, cancellation } = described;
    this.graph = new Graph(graph);
    at("graph").replaceChildren(this.graph.element);
    const speakers = streaming.length ? `streams ${streaming.join(" and ")}` : "does not stream";
    at("facts").textContent = `Haystack ${described.haystack_version}, ${speakers}, ${CANCELLATION[cancellation]}`;
    this.settings.show(name, schema);
  }

  /** Show in the graph which component is at work; null for none. */
  mark(component) {
    this.graph?.mark(component);
  }
}
