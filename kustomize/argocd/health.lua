-- Tells Argo CD how an IngestionJob or an IngestionSavepoint is, from its conditions. Goes into argocd-cm as `resource.customizations.health.forebay.dev_IngestionJob`
-- and `resource.customizations.health.forebay.dev_IngestionSavepoint`.
local health = {status = "Progressing", message = "the operator has not looked at it yet"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
-- What is said of an older spec says nothing of this one.
if status.observedGeneration ~= nil and obj.metadata.generation ~= nil and status.observedGeneration < obj.metadata.generation then
  health.message = "the operator has not looked at the change yet"
  return health
end
for _, condition in ipairs(status.conditions) do
  if condition.status == "True" then
    if condition.type == "Stalled" then
      return {status = "Degraded", message = condition.message}
    elseif condition.type == "Ready" then
      local word = "Healthy"
      if status.phase == "Suspended" then
        word = "Suspended"
      end
      health = {status = word, message = condition.message}
    elseif condition.type == "Reconciling" then
      health = {status = "Progressing", message = condition.message}
    end
  end
end
return health
